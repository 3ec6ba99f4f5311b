"""`halebrain bids`: a BIDS App, from a BIDS data set to a BIDS derivative."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from halebrain.cli.console import Console, echo_message, refuse_without_effect
from halebrain.cli.detect import exams_summed_up, summed_up
from halebrain.cli.options import from_settings
from halebrain.cli.results import command_line, document_of, look_at, refuse_failures
from halebrain.core.errors import UsageError
from halebrain.core.wording import counted
from halebrain.workflows.settings import (
    BRAINS,
    EXTRACTORS,
    BidsSettings,
    DetectSettings,
    Option,
    PartSettings,
    SchedulerSettings,
)

if TYPE_CHECKING:
    from halebrain.workflows.detections import Detections

_OF_PARTICIPANTS = (
    *("participant_label", "session_label", "bids_filter_file", "modality", "each_scan", "fusion", "model", "brain"),
    *("threshold", "min_lesion_mm3", "grow_to", "also_fill", "fill_margin_mm"),
)
"""Options that say which scans are processed and how, which the group level does not do."""
_FORMER = "--exams"
"""The former option for what is the default now: one answer for each session."""


class ListCommand(TyperCommand):
    """A command whose options may take several values at once, as BIDS Apps have it: `--participant-label 01 02`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write `--option a b` as `--option a --option b` for every option that may be repeated, then go on."""
        several = {name for param in self.params if getattr(param, "multiple", False) for name in param.opts}
        if _FORMER in args:
            if "--each-scan" in args:
                raise UsageError(
                    "--exams and --each-scan exclude each other", received="both", remedy="remove one of them"
                )
            echo_message("warning: --exams is the default now; the former option is understood until version 0.4")
            args = [arg for arg in args if arg != _FORMER]
        current, fresh, spread = None, False, []
        for arg in args:
            if arg.startswith("-"):
                current, fresh = arg if arg in several else None, True
            elif current is not None:
                spread += [] if fresh else [current]
                fresh = False
            spread.append(arg)
        return super().parse_args(ctx, spread)


@from_settings(
    scheduler={
        "workers": Option(
            "Number of exams or scans in parallel, one process each; default: one after the other.",
            ("--workers", "--n-procs", "--nprocs"),
            minimum=0,
        ),
    },
    detect={
        "modality": None,
        "dicom_seg": None,
        "fill": None,
        "threshold": Option("auto, a number, or the name of a stored threshold (fpr:0.01)."),
        "brain": Option(f"Brain extraction: auto, {EXTRACTORS}.", known=BRAINS),
        "seed": Option("Random seed.", ("--seed", "--random-seed")),
    },
)
def bids(
    bids_dir: Annotated[Path, Option("The BIDS data set.", is_argument=True)],
    out_dir: Annotated[
        Path,
        Option(
            "The output data set: BIDS_DIR/derivatives/halebrain, or another folder.", is_argument=True, is_output=True
        ),
    ],
    level: Annotated[
        Literal["participant", "group"],
        Option("participant: process scans; group: one table of all results.", is_argument=True),
    ],
    context: typer.Context,
    settings: BidsSettings,
    detect: DetectSettings,
    scheduler: SchedulerSettings,
    part: PartSettings,
    console: Console,
) -> None:
    """Run as a BIDS App: BIDS_DIR OUT_DIR participant|group. A second run resumes."""
    results = console.begin("bids")
    from halebrain.workflows.bids_app import run_exam_participants, run_group, run_participants

    if settings.each_scan and settings.fusion != BidsSettings.fusion:
        raise UsageError(
            "--fusion and --each-scan exclude each other", received=settings.fusion, remedy="remove one of them"
        )
    if level == "group":
        rule, remedy = "has no effect at the group level", "remove it: the table holds all results as they are"
        refuse_without_effect(context, _OF_PARTICIPANTS, rule, received=level, remedy=remedy)
        grouped = run_group(out_dir, bids_dir, notify=detect.notify)
        results.line(grouped.table)
        results.finish(
            f"{counted(len(grouped.rows), 'scan')} in one table",
            wrote=[grouped.table, grouped.index],
            then=[look_at(grouped.index)],
            document={
                "output": out_dir,
                "level": level,
                "table": grouped.table,
                "index": grouped.index,
                "scans": grouped.rows,
            },
        )
        return
    found: Detections[Any]
    how: dict[str, Any] = {"schedule": scheduler.schedule(out_dir, threads=console.threads), "part": part}
    if settings.each_scan:
        found = run_participants(bids_dir, out_dir, settings, detect, **how)
        line, what = summed_up(found), "scan"
    else:
        found = run_exam_participants(bids_dir, out_dir, settings, detect, **how)
        line, what = exams_summed_up(found), "exam"
    results.line(out_dir)
    pages = [] if found.index is None else [look_at(found.index)]
    results.finish(
        line,
        wrote=[out_dir],
        then=[*pages, command_line("bids", bids_dir, out_dir, "group")],
        document=document_of(out_dir, found, f"{what}s", level="participant"),
    )
    refuse_failures(found, what, out_dir / "logs", each="record")
