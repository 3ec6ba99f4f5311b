"""`halebrain export-nnunet`: export the scans of a manifest in nnU-Net v2's raw format."""

from pathlib import Path
from typing import Annotated

from halebrain.cli.console import Console
from halebrain.cli.options import from_settings
from halebrain.core.wording import counted
from halebrain.workflows.settings import ExportSettings, ManifestPath, Option


@from_settings()
def export_nnunet(
    manifest: ManifestPath,
    output: Annotated[
        Path, Option("nnUNet_raw, the parent folder of the new data set.", ("--output", "-o"), is_output=True)
    ],
    settings: ExportSettings,
    console: Console,
) -> None:
    """Write DatasetNNN_NAME with images, labels, dataset.json and splits_final.json. Prints its path.

    Copy splits_final.json to nnUNet_preprocessed/DatasetNNN_NAME, and train fold 0.
    """
    results = console.begin("export-nnunet")
    from halebrain.workflows.export_nnunet import export_nnunet as run

    done = run(manifest, output, settings)
    results.line(done.folder)
    steps = [] if done.splits is None else [f"copy {done.splits} to nnUNet_preprocessed/{done.folder.name}"]
    results.finish(
        f"{counted(len(done.cases), 'case')} of {', '.join(done.modalities)}",
        wrote=[done.folder],
        then=[f"{step}, and train fold 0" for step in steps],
        document={
            "output": done.folder,
            "grid": settings.grid,
            "modalities": done.modalities,
            "cases": [{"case": case.name, "split": case.split} for case in done.cases],
        },
    )
