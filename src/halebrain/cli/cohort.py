"""`halebrain cohort`: make the virtual cohort."""

from halebrain.cli.console import Console
from halebrain.cli.options import from_settings
from halebrain.cli.results import command_line
from halebrain.core.wording import counted
from halebrain.workflows.settings import CohortSettings, Output


@from_settings()
def cohort(output: Output, settings: CohortSettings, console: Console) -> None:
    """Make a virtual cohort: healthy brains and patients with exact ground truth. Prints the manifest's path."""
    results = console.begin("cohort")
    from halebrain.workflows.cohort import make_cohort

    made = make_cohort(output, settings)
    subjects, path = made.manifest.subjects(), made.path
    results.line(path)
    results.finish(
        f"{counted(len(subjects), 'virtual subject')}, {counted(len(made.manifest), 'scan')}; overview: {made.montage}",
        wrote=[output],
        then=[command_line("train", "reconstructor", "-c", "demo", "--manifest", path, "-o", "runs/stage1")],
        document={
            "output": output,
            "manifest": path,
            "montage": made.montage,
            "subjects": subjects,
            "scans": len(made.manifest),
        },
    )
