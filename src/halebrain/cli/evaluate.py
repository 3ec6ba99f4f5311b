"""`halebrain evaluate`: evaluate a model on annotated scans."""

import json

import typer

from halebrain.cli.console import Console, refuse_without_effect
from halebrain.cli.options import from_settings
from halebrain.cli.results import failed_scans, left_out_groups, look_at
from halebrain.core.wording import counted
from halebrain.workflows.settings import EvaluateSettings, Output, SchedulerSettings

_OF_MODEL = (
    *("split", "modalities", "pathologies", "min_lesion_mm3", "grow_to", "grid", "protocol"),
    *("reconstruction", "baselines", "device", "exams", "fusion"),
)
_OF_FOLDERS = ("references", "brain_masks", "labels")


@from_settings()
def evaluate(
    context: typer.Context,
    output: Output,
    settings: EvaluateSettings,
    scheduler: SchedulerSettings,
    console: Console,
) -> None:
    """Evaluate a model on the annotated scans of a manifest, or result files of any method against references."""
    results = console.begin("evaluate")
    if settings.predictions is not None:
        refuse_without_effect(context, _OF_MODEL, "needs a model and cannot be used with --predictions")
    else:
        if settings.protocol is not None:
            refuse_without_effect(context, ("grid",), "has no effect with --protocol, which sets its own")
        refuse_without_effect(context, _OF_FOLDERS, "needs --predictions and cannot be used with a model")
    from halebrain.evaluation.tables import headline
    from halebrain.workflows.evaluate import evaluate as run

    done = run(output, settings, schedule=scheduler.schedule(output, threads=console.threads))
    for line in (*headline(done.evaluation).splitlines(), *done.files):
        results.line(line)
    failed = done.failures.reasons
    results.finish(
        f"{counted(done.n_scored, 'scan')} scored" + (f"; {counted(len(failed), 'scan')} failed" if failed else ""),
        wrote=[output],
        then=[look_at(done.files[-1])],
        document={
            "output": output,
            "files": done.files,
            "left_out": left_out_groups(done.left_out),
            "failed": failed_scans(failed),
            **json.loads((output / "summary.json").read_text("utf-8")),
        },
    )
    done.failures.refuse(
        "every scan should be scored",
        done.n_scored + len(failed),
        where=output / "summary.json",
        remedy="the results cover the other scans; fix the problem in each line and evaluate again",
    )
