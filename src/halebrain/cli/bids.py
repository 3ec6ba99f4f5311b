"""`halebrain bids`: a BIDS App, from a BIDS data set to a BIDS derivative."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halebrain.cli import completion, options
from halebrain.cli.detect import summed_up
from halebrain.cli.results import Results, command_line, failed_scans, left_out_groups, look_at
from halebrain.core.errors import PartialFailureError
from halebrain.core.wording import counted

if TYPE_CHECKING:
    from halebrain.io.bids_query import BidsQuery
    from halebrain.workflows.bids_app import GroupResults, ParticipantResults

_SHOWN = 10


class Level(StrEnum):
    """The two steps of a BIDS App."""

    PARTICIPANT = "participant"
    GROUP = "group"


def bids(
    bids_dir: Annotated[Path, typer.Argument(help="The BIDS data set.")],
    out_dir: Annotated[
        Path, typer.Argument(help="The output data set: BIDS_DIR/derivatives/halebrain, or another folder.")
    ],
    level: Annotated[Level, typer.Argument(help="participant: process scans; group: one table of all results.")],
    model: options.ModelPath = None,
    participant_label: Annotated[
        list[str] | None,
        typer.Option(
            "--participant-label", "--participant_label", help="Only these participants, with or without sub-."
        ),
    ] = None,
    session_label: Annotated[
        list[str] | None,
        typer.Option("--session-label", "--session_label", help="Only these sessions, with or without ses-."),
    ] = None,
    bids_filter_file: Annotated[
        Path | None, typer.Option("--bids-filter-file", help='JSON of BIDS filters: {"t1w": {"run": 1}}.')
    ] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(
            "--modality",
            autocompletion=completion.among(*completion.MODALITIES, "T1ce", "inplaneT2"),
            help="T1w, T2w, FLAIR, T1ce, inplaneT2; default: the contrasts of the model's training data.",
        ),
    ] = None,
    skip_bids_validation: Annotated[
        bool, typer.Option("--skip-bids-validation", help="Do not run the BIDS validator.")
    ] = False,
    work_dir: Annotated[
        Path | None, typer.Option("--work-dir", "-w", help="Folder for temporary files, which are removed at the end.")
    ] = None,
    threshold: Annotated[
        str, typer.Option("--threshold", help="auto, a number, or the name of a stored threshold (fpr:0.01).")
    ] = "auto",
    min_lesion_mm3: options.MinLesion = None,
    brain: Annotated[
        str,
        typer.Option(
            "--brain",
            autocompletion=completion.among(*completion.BRAINS),
            help="Brain extraction: auto, stripped, synthstrip, hdbet, deepbet or atlas.",
        ),
    ] = "auto",
    seed: Annotated[int, typer.Option("--seed", "--random-seed", help="Random seed.")] = 0,
    draws: Annotated[int, typer.Option("--draws", min=1, help="Noise samples per level.")] = 1,
    batch_size: options.BatchSize = 16,
    device: options.Device = "auto",
    n_procs: Annotated[
        int, typer.Option("--n-procs", "--nprocs", min=1, help="Number of scans in parallel, one process each.")
    ] = 1,
    threads: options.Threads = None,
    stop_on_first_crash: Annotated[
        bool, typer.Option("--stop-on-first-crash", help="Stop at the first scan that fails.")
    ] = False,
    overwrite: options.Overwrite = False,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Run as a BIDS App: BIDS_DIR OUT_DIR participant|group. A second run resumes."""
    options.set_up(threads=threads, no_progress=no_progress)
    from halebrain.io.bids_derivative import check_place
    from halebrain.workflows.bids_app import ParticipantRun, check_dataset, run_group, run_participants

    results, notify = Results("bids", as_json=as_json), options.echo_message
    check_place(out_dir, bids_dir)
    check_dataset(bids_dir, validate=not skip_bids_validation and level is Level.PARTICIPANT, notify=notify)
    if level is Level.GROUP:
        _tell_group(results, out_dir, run_group(out_dir, bids_dir, notify=notify))
        return
    query = _query(participant_label, session_label, bids_filter_file, modality)
    from halebrain.workflows.detect import DetectSettings

    settings = DetectSettings(
        model=model,
        threshold=threshold,
        min_lesion_mm3=min_lesion_mm3,
        brain=brain,
        seed=seed,
        draws=draws,
        batch_size=batch_size,
        device=device,
        overwrite=overwrite,
        notify=notify,
    )
    run = ParticipantRun(
        dataset=bids_dir,
        output=out_dir,
        query=query,
        detect=settings,
        n_procs=n_procs,
        threads=threads,
        stop=stop_on_first_crash,
        work_dir=work_dir,
    )
    done = run_participants(run)
    _tell(results, bids_dir, out_dir, done)
    if failed := done.failed:
        more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
        raise PartialFailureError(
            "every scan should be processed",
            received=f"{len(failed)} of {done.n_scans} that failed: {', '.join(list(failed)[:_SHOWN])}{more}",
            where=out_dir / "logs",
            remedy="fix the problem in each record, then run the same command again; it processes only those scans",
        )


def _query(
    participants: list[str] | None, sessions: list[str] | None, filter_file: Path | None, modalities: list[str] | None
) -> "BidsQuery":
    from halebrain.io.bids_query import BidsQuery, read_rules

    rules: dict[str, Any] = {}
    if filter_file is not None:
        rules, others = read_rules(filter_file)
        if others:
            options.echo_message(f"warning: the filters {', '.join(others)} match no suffix that is processed")
    return BidsQuery(tuple(participants or ()), tuple(sessions or ()), tuple(modalities or ()), rules)


def _tell(results: Results, dataset: Path, output: Path, done: "ParticipantResults") -> None:
    """Print the closing summary: findings, paths and next step."""
    results.line(output)
    results.finish(
        summed_up(done.scans) + (f"; {counted(len(done.failed), 'scan')} failed" if done.failed else ""),
        wrote=[output],
        then=[look_at(done.index), command_line("bids", dataset, output, "group")],
        document={
            "output": output,
            "index": done.index,
            "level": Level.PARTICIPANT.value,
            "scans": [vars(scan) for scan in done.scans],
            "failed": failed_scans(done.failed),
            "left_out": left_out_groups(done.left_out),
        },
    )


def _tell_group(results: Results, output: Path, done: "GroupResults") -> None:
    """Print the path of the group table, and the closing summary."""
    results.line(done.table)
    results.finish(
        f"{counted(len(done.rows), 'scan')} in one table",
        wrote=[done.table, done.index],
        then=[look_at(done.index)],
        document={
            "output": output,
            "level": Level.GROUP.value,
            "table": done.table,
            "index": done.index,
            "scans": done.rows,
        },
    )
