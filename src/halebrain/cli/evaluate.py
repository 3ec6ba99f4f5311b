"""`halebrain evaluate`: evaluate a model on annotated scans."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from halebrain.cli.console import Console, refuse_without_effect
from halebrain.cli.options import from_settings
from halebrain.cli.results import Results, failed_scans, left_out_groups, look_at
from halebrain.core.wording import counted
from halebrain.workflows.settings import EvaluateSettings, Output, PartSettings, SchedulerSettings

if TYPE_CHECKING:
    from halebrain.workflows.evaluate import EvaluationPart

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
    part: PartSettings,
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
        if not settings.exams:
            refuse_without_effect(
                context, ("fusion",), "needs --exams", received="--fusion alone", remedy="add --exams"
            )
    from halebrain.evaluation.tables import headline
    from halebrain.workflows.evaluate import EvaluationPart, evaluate_part

    done = evaluate_part(output, settings, part, schedule=scheduler.schedule(output, threads=console.threads))
    if isinstance(done, EvaluationPart):
        _tell_part(results, output, part, done)
        return
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


def _tell_part(results: Results, output: Path, part: PartSettings, done: "EvaluationPart") -> None:
    """Print what a part did, and which parts are missing."""
    failed = done.failures.reasons
    said = f"{counted(done.n_scored, 'scan')} of this part scored, {done.n_kept} of them before"
    typer.echo(said, err=True)
    if missing := done.left.by_part:
        of_parts = ", ".join(f"{count} of part {index}" for index, count in missing.items())
        are = f"{counted(len(done.left), 'scan')} {'is' if len(done.left) == 1 else 'are'}"
        line = f"{are} left ({of_parts} of {part.num_parts}); the last part writes tables and page"
    else:
        line = f"another part has written tables and page: {output / 'index.html'}"
    typer.echo(line, err=True)
    results.finish(
        said,
        wrote=[output],
        then=[line],
        document={
            "output": output,
            "scored": done.n_scored,
            "kept": done.n_kept,
            "left": len(done.left),
            "failed": failed_scans(failed),
            "left_out": left_out_groups(done.left_out),
        },
    )
    done.failures.refuse(
        "every scan should be scored",
        done.n_scored + len(failed),
        where=output,
        remedy="fix the problem in each line and run the same part again; it scores only those scans",
    )
