"""The BIDS App: a BIDS data set to a derivative, scan by scan in one or several processes, and the group table."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from halebrain.core.device import find_device
from halebrain.core.errors import CannotWriteError, DataError, HalebrainError, MissingInputError, UnexpectedError
from halebrain.core.failures import Failures
from halebrain.core.files import write_text
from halebrain.core.leftovers import new_scratch_folder
from halebrain.core.messages import Notify, log_message
from halebrain.core.parallel import map_items
from halebrain.core.progress import ProgressBar
from halebrain.core.wording import counted, printable
from halebrain.inference.group import COLUMNS, FAILURES, FailureRecord, Row, group_rows, group_tsv, read_failure
from halebrain.inference.outputs import OutputNames
from halebrain.io.bids_derivative import (
    DESCRIPTION,
    begin_derivative,
    check_place,
    read_description,
    write_participants,
)
from halebrain.io.bids_query import MODALITIES, BidsQuery, read_rules, select_scans
from halebrain.io.bids_validator import find_validator, refuse_invalid
from halebrain.io.discovery import Found
from halebrain.io.tree import LeftOut, summed_left_out
from halebrain.io.volume import stem_of
from halebrain.workflows.pages import write_index
from halebrain.workflows.settings import BidsSettings, DetectSettings

if TYPE_CHECKING:  # the group level needs no networks
    from halebrain.workflows.detect import DetectedScan, Detector

TABLE = "group_anomaly.tsv"


@dataclass(frozen=True)
class ParticipantResults:
    """What the participant level did.

    Args:
        scans: Those that were processed, now or before.
        failures: Those that failed, with the reason.
        index: The page of all scans.
        left_out: Images of the data set that are not used.
        n_scans: Scans that were asked for.
    """

    scans: "list[DetectedScan]"
    failures: Failures
    index: Path
    left_out: tuple[LeftOut, ...]
    n_scans: int


@dataclass(frozen=True)
class GroupResults:
    """What the group level wrote.

    Args:
        rows: Rows of the table.
        table: Its path.
        index: The page of all scans.
    """

    rows: list[Row]
    table: Path
    index: Path


def _check_dataset(dataset: Path, *, validate: bool = True, notify: Notify = log_message) -> None:
    """Stop where a folder is no BIDS data set, or no valid one where the BIDS validator is installed."""
    if not dataset.is_dir():
        raise MissingInputError("a BIDS data set must be a folder", where=dataset, remedy="check the path given")
    if not validate:
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
        notify(f"warning: {said}; --skip-bids-validation turns this warning off")
        return
    refuse_invalid(program, dataset)


def run_participants(
    dataset: Path, output: Path, settings: BidsSettings, detect: DetectSettings, *, threads: int | None = None
) -> ParticipantResults:
    """Process the selected scans of a data set; one that fails leaves a record and does not stop the others.

    Args:
        dataset: The BIDS data set.
        output: The derivative.
        settings: Which scans, and in how many processes.
        detect: How they are processed.
        threads: CPU threads of each process; `None` = the cores, shared out.

    Raises:
        HalebrainError: Data set, model or an option cannot be used, or a scan failed and the first failure is to stop.
    """
    check_place(output, dataset)
    _check_dataset(dataset, validate=not settings.skip_bids_validation, notify=detect.notify)
    images = _select(dataset, _query(settings, detect.notify), detect.model)
    if line := summed_left_out(images.left_out):
        detect.notify(f"warning: {line}")
    begin_derivative(output, dataset)
    with _temporary_files_in(settings.work_dir):
        scans, failures = _detect_all(images, dataset, output, settings, detect, threads)
    names, failed = [_name(image) for image in images], failures.reasons
    index = _write_overview(output, dataset, looked_at=names, failed=failed, notify=detect.notify)
    return ParticipantResults(scans, failures, index, tuple(images.left_out), len(images))


def _query(settings: BidsSettings, notify: Notify) -> BidsQuery:
    """Return which scans are asked for; filters of suffixes that are not processed are reported."""
    rules, others = ({}, []) if settings.bids_filter_file is None else read_rules(settings.bids_filter_file)
    if others:
        notify(f"warning: the filters {', '.join(others)} match no suffix that is processed")
    return BidsQuery(settings.participant_label, settings.session_label, settings.modality, rules)


def run_group(derivative: Path, dataset: Path, *, notify: Notify = log_message) -> GroupResults:
    """Write the table of all results, its dictionary and the page of all scans.

    Args:
        derivative: Where the results of participants are.
        dataset: The BIDS data set that they are of.
        notify: Receives the warning about scans without a result.

    Raises:
        MissingInputError: There is no result.
        DataError: A result or a record of a failure is damaged.
        CannotWriteError: The folder cannot be written.
    """
    check_place(derivative, dataset)
    _check_dataset(dataset, validate=False, notify=notify)
    rows = group_rows(derivative)
    if not rows:
        raise MissingInputError(
            "the group level needs results", where=derivative, remedy="run the participant level first"
        )
    path = derivative / TABLE
    write_text(path.with_suffix(".json"), json.dumps(COLUMNS, indent=2) + "\n")
    write_text(path, group_tsv(rows))
    names = [stem_of(Path(row["scan"])) for row in rows]
    index = _write_overview(derivative, dataset, looked_at=names, failed={}, notify=notify)
    if failed := [row["scan"] for row in rows if row["status"] == "failed"]:
        said = f"{counted(len(failed), 'scan')} failed and {'has' if len(failed) == 1 else 'have'} no result"
        notify(f"warning: {said}: {', '.join(failed)}")
    return GroupResults(rows, path, index)


def _write_overview(
    derivative: Path, dataset: Path, *, looked_at: Iterable[str], failed: Mapping[str, str], notify: Notify
) -> Path:
    """Write the page of all scans and the table of participants; return the path of the page."""
    write_participants(derivative, dataset)
    # Each scan has its own record, so that jobs that share the folder do not lose each other's failures.
    return write_index(derivative, looked_at, failed, recorded=_recorded_failures, notify=notify)


def _recorded_failures(derivative: Path) -> dict[str, str]:
    """Return name → reason of every scan with a record of a failure and no result, whichever run it was."""
    found = {}
    for path in (derivative / FAILURES).glob("*.json"):
        try:
            record = read_failure(path)
        except FileNotFoundError:
            continue  # another job has just completed it
        folder = (derivative / record.input_in_dataset).parent
        if not OutputNames(folder, path.stem).provenance.is_file():
            found[path.stem] = record.error
    return found


def _select(dataset: Path, query: BidsQuery, model: Path | None) -> Found[Path]:
    """Return the selected scans; by default of the contrasts of the model's training data."""
    from halebrain.models.store import load_model

    if query.modalities:
        return select_scans(dataset, query)
    learned = load_model(model).modalities
    if not learned or not set(learned) <= set(MODALITIES):
        return select_scans(dataset, query)
    every = select_scans(dataset, query)
    chosen = select_scans(dataset, replace(query, modalities=learned))
    reason = f"of other contrasts: the model was trained on {', '.join(learned)}; --modality includes them"
    other = [LeftOut(path.relative_to(dataset).as_posix(), reason) for path in every if path not in set(chosen)]
    return Found(chosen, [*every.left_out, *other])


def _detect_all(
    images: Sequence[Path],
    dataset: Path,
    output: Path,
    settings: BidsSettings,
    detect: DetectSettings,
    threads: int | None,
) -> "tuple[list[DetectedScan], Failures]":
    """Process every scan; return the results, and those that failed."""
    alone = settings.n_procs == 1
    # Problems of model or device affect all scans. Other processes load their own model; one on a GPU would take
    # their room.
    find_device(detect.device)
    _detector(detect if alone else replace(detect, device="cpu"))
    done: dict[int, DetectedScan] = {}
    failed: dict[str, str] = {}
    with ProgressBar("Detecting", len(images)) as bar:
        # Steps within a scan are shown for this process only; other processes report finished scans.
        work = partial(_detect_one, dataset, output, detect, bar=bar if alone else None, named=len(images) > 1)
        threads = threads or max(1, (os.cpu_count() or 1) // settings.n_procs)
        results = map_items(work, images, workers=0 if alone else settings.n_procs, threads=threads)
        for count, (index, result) in enumerate(results, start=1):
            bar.reach(count)
            name = _name(images[index])
            record = output / FAILURES / f"{name}.json"
            if not isinstance(result, HalebrainError):
                record.unlink(missing_ok=True)
                done[index] = result
                continue
            _write_record(record, images[index].relative_to(dataset), result)
            if settings.stop_on_first_crash:
                raise result
            detect.notify(f"{name}: {result!s}")
            failed[name] = str(result)
    return [done[index] for index in sorted(done)], Failures(None, dict(sorted(failed.items())))


def _detect_one(
    dataset: Path, output: Path, settings: DetectSettings, image: Path, *, bar: ProgressBar | None, named: bool
) -> "DetectedScan":
    """Process one scan, and advance the progress bar if there is one."""
    from halebrain.inference.scans import bids_scan
    from halebrain.workflows.detect import detect_scan
    from halebrain.workflows.scan_steps import begin_scan

    detector, scan = _detector(settings), bids_scan(image, dataset)
    steps = None if bar is None else begin_scan(bar, scan, detector.predictor, named=named)
    return detect_scan(detector, scan, output / image.relative_to(dataset).parent, steps=steps)


@lru_cache(maxsize=1)
def _detector(settings: DetectSettings) -> "Detector":
    """Return the model, which each process loads once."""
    from halebrain.workflows.detect import load_detector

    return load_detector(settings)


def _name(image: Path) -> str:
    return printable(stem_of(image))


def _write_record(path: Path, place: Path, error: HalebrainError) -> None:
    lines = tuple(error.traceback.splitlines()) if isinstance(error, UnexpectedError) else ()
    record = FailureRecord(input_in_dataset=place.as_posix(), error=str(error), traceback=lines)
    write_text(path, json.dumps(record.to_json(), indent=2) + "\n")


@contextmanager
def _temporary_files_in(folder: Path | None) -> Iterator[None]:
    """Let temporary files of this process and of those that it starts lie in `folder`; `None` = where they always do.

    Raises:
        CannotWriteError: The folder cannot be made.
    """
    if folder is None:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        inner = new_scratch_folder(folder)
    except OSError as error:
        raise CannotWriteError(
            "--work-dir must be writable",
            received=error.strerror or error,
            where=folder,
            remedy="choose another folder",
        ) from error
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = tempfile.tempdir = str(inner)
    try:
        yield
    finally:
        tempfile.tempdir = None
        os.environ.pop("TMPDIR")
        if before is not None:
            os.environ["TMPDIR"] = before
        shutil.rmtree(inner, ignore_errors=True)
