"""`halebrain bids`: a BIDS App, from a BIDS data set to a BIDS derivative."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halebrain.cli import completion, options
from halebrain.cli.bids_group import write_group, write_overview
from halebrain.cli.bids_work import Looking, look_at_all
from halebrain.cli.results import Results, command_line, failed_scans, look_at, tell_left_out
from halebrain.core.errors import DataError, MissingInputError, PartialFailureError
from halebrain.core.wording import counted, printable

if TYPE_CHECKING:
    from halebrain.io.bids_query import BidsQuery
    from halebrain.io.discovery import Found

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
    from halebrain.io.bids_derivative import begin_derivative, check_place
    from halebrain.io.volume import stem_of

    results = Results("bids", as_json=as_json)
    check_place(out_dir, bids_dir)
    _check_dataset(bids_dir, skip=skip_bids_validation or level is Level.GROUP)
    if level is Level.GROUP:
        write_group(out_dir, bids_dir, results)
        return
    query = _query(participant_label, session_label, bids_filter_file, modality)
    images = _select(bids_dir, query, model)
    left_out = tell_left_out(images.left_out)
    begin_derivative(out_dir, bids_dir)
    looking = Looking(
        *(bids_dir, out_dir, model, threshold, min_lesion_mm3, device, overwrite),
        {"seed": seed, "draws": draws, "batch_size": batch_size, "brain": brain},
    )
    with options.temporary_files_in(work_dir):
        failed = look_at_all(looking, images, n_procs=n_procs, threads=threads, stop=stop_on_first_crash)
    index = write_overview(out_dir, bids_dir, looked_at=[printable(stem_of(image)) for image in images], failed=failed)
    _tell(results, looking, images, failed, index, left_out)
    if failed:
        more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
        raise PartialFailureError(
            "every scan should be processed",
            received=f"{len(failed)} of {len(images)} that failed: {', '.join(list(failed)[:_SHOWN])}{more}",
            where=out_dir / "logs",
            remedy="fix the problem in each record, then run the same command again; it processes only those scans",
        )


def _tell(
    results: Results,
    looking: Looking,
    images: list[Path],
    failed: dict[str, str],
    index: Path,
    left_out: list[dict[str, object]],
) -> None:
    """Print the closing summary: findings, paths and next step."""
    from halebrain.cli.found import found_scan, summed_up
    from halebrain.inference.cohort import bids_scan

    found = []
    for image in images:
        scan = bids_scan(image, looking.dataset)
        if scan.name not in failed and scan.in_dataset is not None:
            found.append(found_scan(looking.output / scan.in_dataset.parent, scan.name))
    results.line(looking.output)
    results.finish(
        summed_up(found) + (f"; {counted(len(failed), 'scan')} failed" if failed else ""),
        wrote=[looking.output],
        then=[look_at(index), command_line("bids", looking.dataset, looking.output, "group")],
        document={
            "output": looking.output,
            "index": index,
            "level": Level.PARTICIPANT.value,
            "scans": found,
            "failed": failed_scans(failed),
            "left_out": left_out,
        },
    )


def _check_dataset(dataset: Path, *, skip: bool) -> None:
    from halebrain.io.bids_derivative import DESCRIPTION, read_description
    from halebrain.io.bids_validator import find_validator, refuse_invalid

    if not dataset.is_dir():
        raise MissingInputError("a BIDS data set must be a folder", where=dataset, remedy="check the path given")
    if skip:
        return
    description = read_description(dataset)
    if lacking := [key for key in ("Name", "BIDSVersion") if not description.get(key)]:
        raise DataError(
            f"a BIDS data set must have a {DESCRIPTION} with Name and BIDSVersion",
            received=f"no {lacking[0]}",
            where=dataset,
            remedy="--skip-bids-validation uses it without these",
        )
    program = find_validator()
    if program is None:
        said = "the BIDS validator is not installed and was not run; pip install 'halebrain[bids]' installs it"
        typer.echo(f"halebrain: warning: {said}; --skip-bids-validation turns this warning off", err=True)
        return
    refuse_invalid(program, dataset)


def _query(
    participants: list[str] | None, sessions: list[str] | None, filter_file: Path | None, modalities: list[str] | None
) -> "BidsQuery":
    from halebrain.io.bids_query import BidsQuery, read_rules

    rules: dict[str, Any] = {}
    if filter_file is not None:
        rules, others = read_rules(filter_file)
        if others:
            said = f"the filters {', '.join(others)} match no suffix that is processed"
            typer.echo(f"halebrain: warning: {said}", err=True)
    return BidsQuery(tuple(participants or ()), tuple(sessions or ()), tuple(modalities or ()), rules)


def _select(dataset: Path, query: "BidsQuery", model: Path | None) -> "Found[Path]":
    """Return the selected scans; by default of the contrasts of the model's training data."""
    from dataclasses import replace

    from halebrain.io.bids_query import MODALITIES, select_scans
    from halebrain.io.discovery import Found
    from halebrain.io.tree import LeftOut
    from halebrain.models.store import load_model

    if query.modalities:
        return select_scans(dataset, query)
    training = load_model(model).training
    learned = {name for stage in training.values() for name in stage.get("modalities", ())}
    if not learned or not learned <= set(MODALITIES):
        return select_scans(dataset, query)
    every = select_scans(dataset, query)
    chosen = select_scans(dataset, replace(query, modalities=tuple(sorted(learned))))
    reason = f"of other contrasts: the model was trained on {', '.join(sorted(learned))}; --modality includes them"
    other = [LeftOut(path.relative_to(dataset).as_posix(), reason) for path in every if path not in set(chosen)]
    return Found(chosen, [*every.left_out, *other])
