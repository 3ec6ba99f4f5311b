"""`halebrain export-nnunet`: export the scans of a manifest in nnU-Net v2's raw format."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from halebrain.cli import options
from halebrain.cli.results import Results
from halebrain.core.wording import counted


class ExportGrid(StrEnum):
    """Where the voxels of the export lie."""

    working = "working"
    native = "native"


def export_nnunet(
    manifest: options.ManifestPath,
    output: Annotated[Path, typer.Option("--output", "-o", help="nnUNet_raw, the parent folder of the new data set.")],
    dataset_id: Annotated[int, typer.Option("--dataset-id", help="Number of the data set, 1 to 999.")],
    name: Annotated[str, typer.Option("--name", help="Name of the data set.")],
    modality: Annotated[
        list[str] | None, typer.Option("--modality", help="Channels, in order; default: all of the manifest.")
    ] = None,
    split: Annotated[list[str] | None, typer.Option("--split", help="Only train, val or test; repeatable.")] = None,
    grid: Annotated[
        ExportGrid, typer.Option("--grid", help="working: preprocessed as for a model; native: not preprocessed.")
    ] = ExportGrid.working,
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="Preprocess as this model does; default: the default settings.")
    ] = None,
    threads: options.Threads = None,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Write DatasetNNN_NAME with images, labels, dataset.json and splits_final.json. Prints its path.

    Copy splits_final.json to nnUNet_preprocessed/DatasetNNN_NAME, and train fold 0.
    """
    options.set_up(threads=threads, no_progress=no_progress)
    from halebrain.core.config import parse_config
    from halebrain.core.errors import UsageError
    from halebrain.data import nnunet
    from halebrain.io.manifest import SPLITS, Manifest
    from halebrain.models.bundle import load_bundle
    from halebrain.models.store import find_model
    from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor

    folder = output / nnunet.dataset_name(dataset_id, name)
    for wanted in split or ():
        if wanted not in SPLITS:
            raise UsageError(
                "--split takes train, val or test",
                received=repr(wanted),
                remedy="for example --split train --split val",
            )
    rows = Manifest.read(manifest).select(lambda r: not split or r.split in split)
    modalities, cases = nnunet.find_cases(rows, modality or ())
    preprocessor = None
    if grid is ExportGrid.working:
        own = {} if model is None else load_bundle(find_model(model)).config.preprocessing
        preprocessor = Preprocessor(parse_config(PreprocessingConfig, own, where=model or "defaults"))
    elif model is not None:
        raise UsageError("--model needs --grid working", remedy="remove one of them")
    results, splits = Results("export-nnunet", as_json=as_json), folder / nnunet.SPLITS_FILE
    results.line(nnunet.export_nnunet(cases, modalities, folder, preprocessor=preprocessor))
    results.finish(
        f"{counted(len(cases), 'case')} of {', '.join(modalities)}",
        wrote=[folder],
        then=[f"copy {splits} to nnUNet_preprocessed/{folder.name}, and train fold 0"] if splits.is_file() else (),
        document={
            "output": folder,
            "grid": grid.value,
            "modalities": modalities,
            "cases": [{"case": case.name, "split": case.split} for case in cases],
        },
    )
