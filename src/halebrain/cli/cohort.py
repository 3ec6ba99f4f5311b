"""`halebrain cohort`: make the virtual cohort."""

from halebrain.cli.console import Console
from halebrain.cli.options import from_settings
from halebrain.cli.results import command_line
from halebrain.core.wording import counted
from halebrain.workflows.settings import CohortSettings, Output, PartSettings, SchedulerSettings


@from_settings()
def cohort(
    output: Output, settings: CohortSettings, scheduler: SchedulerSettings, part: PartSettings, console: Console
) -> None:
    """Make a virtual cohort: healthy brains and patients with exact ground truth. Prints the manifest's path."""
    results = console.begin("cohort")
    from halebrain.workflows.cohort import make_cohort

    made = make_cohort(output, settings, schedule=scheduler.schedule(output, threads=console.threads or 1), part=part)
    subjects, path = made.manifest.subjects(), made.path
    said = f"{counted(len(subjects), 'virtual subject')}, {counted(len(made.manifest), 'scan')}"
    if made.left:
        then = "run the remaining parts; the last one writes the manifest"
    else:
        said += f"; overview: {made.montage}"
        then = command_line("train", "reconstructor", "-c", "demo", "--manifest", path, "-o", "runs/stage1")
        results.line(path)
    results.finish(
        said,
        wrote=[output],
        then=[then],
        document={
            "output": output,
            "manifest": path,
            "montage": made.montage,
            "subjects": subjects,
            "scans": len(made.manifest),
            "left": made.left,
        },
    )
