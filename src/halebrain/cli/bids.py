"""`halebrain bids`: a BIDS App, from a BIDS data set to a BIDS derivative."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer.core import TyperCommand

from halebrain.cli.console import Console
from halebrain.cli.detect import exams_summed_up, summed_up
from halebrain.cli.options import from_settings
from halebrain.cli.results import Results, command_line, failed_scans, left_out_groups, look_at
from halebrain.core.wording import counted
from halebrain.workflows.settings import BRAINS, EXTRACTORS, BidsSettings, DetectSettings, Option

if TYPE_CHECKING:
    from halebrain.workflows.exam import DetectedExams


class ListCommand(TyperCommand):
    """A command whose options may take several values at once, as BIDS Apps have it: `--participant-label 01 02`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write `--option a b` as `--option a --option b` for every option that may be repeated, then go on."""
        several = {name for param in self.params if getattr(param, "multiple", False) for name in param.opts}
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
    detect={
        "modality": None,
        "dicom_seg": None,
        "fill": None,
        "threshold": Option("auto, a number, or the name of a stored threshold (fpr:0.01)."),
        "brain": Option(f"Brain extraction: auto, {EXTRACTORS}.", known=BRAINS),
        "seed": Option("Random seed.", ("--seed", "--random-seed")),
    }
)
def bids(
    bids_dir: Annotated[Path, Option("The BIDS data set.", is_argument=True)],
    out_dir: Annotated[
        Path, Option("The output data set: BIDS_DIR/derivatives/halebrain, or another folder.", is_argument=True)
    ],
    level: Annotated[
        Literal["participant", "group"],
        Option("participant: process scans; group: one table of all results.", is_argument=True),
    ],
    settings: BidsSettings,
    detect: DetectSettings,
    console: Console,
) -> None:
    """Run as a BIDS App: BIDS_DIR OUT_DIR participant|group. A second run resumes."""
    results = console.begin("bids")
    from halebrain.workflows.bids_app import run_exam_participants, run_group, run_participants

    if level == "group":
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
    if settings.exams:
        _print_exams(
            results,
            bids_dir,
            out_dir,
            run_exam_participants(bids_dir, out_dir, settings, detect, threads=console.threads),
        )
        return
    done = run_participants(bids_dir, out_dir, settings, detect, threads=console.threads)
    results.line(out_dir)
    pages = [] if done.index is None else [look_at(done.index)]
    results.finish(
        summed_up(done.scans, done.failures.reasons),
        wrote=[out_dir],
        then=[*pages, command_line("bids", bids_dir, out_dir, "group")],
        document={
            "output": out_dir,
            "index": done.index,
            "level": level,
            "scans": [scan.to_json() for scan in done.scans],
            "failed": failed_scans(done.failures.reasons),
            "left_out": left_out_groups(done.left_out),
        },
    )
    done.failures.refuse(
        "every scan should be processed",
        done.n_scans,
        where=out_dir / "logs",
        remedy="fix the problem in each record, then run the same command again; it processes only those scans",
    )


def _print_exams(results: Results, bids_dir: Path, out_dir: Path, done: "DetectedExams") -> None:
    """Print the closing summary of exams."""
    results.line(out_dir)
    pages = [] if done.index is None else [look_at(done.index)]
    results.finish(
        exams_summed_up(done),
        wrote=[out_dir],
        then=[*pages, command_line("bids", bids_dir, out_dir, "group")],
        document={
            "output": out_dir,
            "index": done.index,
            "level": "participant",
            "exams": [exam.to_json() for exam in done.exams],
            "failed": failed_scans(done.failures.reasons),
            "left_out": left_out_groups(done.left_out),
        },
    )
    done.failures.refuse(
        "every exam should be processed",
        done.n_exams,
        where=out_dir / "logs",
        remedy="fix the problem in each record, then run the same command again; it processes only those exams",
    )
