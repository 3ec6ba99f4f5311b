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
from typing import TYPE_CHECKING, Any

from halebrain.core.device import find_device
from halebrain.core.errors import CannotWriteError, DataError, HalebrainError, MissingInputError, UnexpectedError
from halebrain.core.files import write_text
from halebrain.core.leftovers import new_scratch_folder
from halebrain.core.messages import Notify, log_message
from halebrain.core.parallel import map_items
from halebrain.core.progress import ProgressBar
from halebrain.core.wording import counted, printable
from halebrain.inference.group import COLUMNS, FAILURES, Row, group_rows, group_tsv
from halebrain.inference.outputs import OutputNames
from halebrain.io.bids_derivative import DESCRIPTION, begin_derivative, read_description, write_participants
from halebrain.io.bids_query import MODALITIES, BidsQuery, select_scans
from halebrain.io.bids_validator import find_validator, refuse_invalid
from halebrain.io.discovery import Found
from halebrain.io.tree import LeftOut, summed_left_out
from halebrain.io.volume import stem_of
from halebrain.workflows.pages import write_index

if TYPE_CHECKING:  # the group level needs no networks
    from halebrain.workflows.detect import DetectedScan, Detector, DetectSettings

TABLE = "group_anomaly.tsv"


@dataclass(frozen=True)
class ParticipantRun:
    """What the participant level does.

    Args:
        dataset: The BIDS data set.
        output: The derivative.
        query: Which scans.
        detect: How they are processed.
        n_procs: Scans in parallel; more than one run in separate processes.
        threads: CPU threads of each process; `None` = the cores, shared out.
        stop: Raise the first error instead of going on.
        work_dir: Folder for temporary files; `None` = where they always are.
    """

    dataset: Path
    output: Path
    query: BidsQuery
    detect: "DetectSettings"
    n_procs: int = 1
    threads: int | None = None
    stop: bool = False
    work_dir: Path | None = None


@dataclass(frozen=True)
class ParticipantResults:
    """What the participant level did.

    Args:
        scans: Those that were processed, now or before.
        failed: Name → reason of those that failed.
        index: The page of all scans.
        left_out: Images of the data set that are not used.
        n_scans: Scans that were asked for.
    """

    scans: "list[DetectedScan]"
    failed: dict[str, str]
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


def check_dataset(dataset: Path, *, validate: bool = True, notify: Notify = log_message) -> None:
    """Check that a folder is a BIDS data set, with the BIDS validator where it is installed.

    Args:
        dataset: The folder.
        validate: Whether to check what it holds.
        notify: Receives the warning that the validator is not installed.

    Raises:
        MissingInputError: There is no such folder.
        DataError: It is not valid.
    """
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


def run_participants(run: ParticipantRun) -> ParticipantResults:
    """Process the selected scans of a data set; one that fails leaves a record and does not stop the others.

    Raises:
        HalebrainError: Data set, model or an option cannot be used, or a scan failed and `run.stop` is set.
    """
    notify = run.detect.notify
    images = _select(run)
    if line := summed_left_out(images.left_out):
        notify(f"warning: {line}")
    begin_derivative(run.output, run.dataset)
    with _temporary_files_in(run.work_dir):
        scans, failed = _detect_all(run, images)
    names = [_name(image) for image in images]
    index = write_overview(run.output, run.dataset, looked_at=names, failed=failed, notify=notify)
    return ParticipantResults(scans, failed, index, tuple(images.left_out), len(images))


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
    rows = group_rows(derivative)
    if not rows:
        raise MissingInputError(
            "the group level needs results", where=derivative, remedy="run the participant level first"
        )
    path = derivative / TABLE
    write_text(path.with_suffix(".json"), json.dumps(COLUMNS, indent=2) + "\n")
    write_text(path, group_tsv(rows))
    names = [stem_of(Path(row["scan"])) for row in rows]
    index = write_overview(derivative, dataset, looked_at=names, failed={}, notify=notify)
    if failed := [row["scan"] for row in rows if row["status"] == "failed"]:
        said = f"{counted(len(failed), 'scan')} failed and {'has' if len(failed) == 1 else 'have'} no result"
        notify(f"warning: {said}: {', '.join(failed)}")
    return GroupResults(rows, path, index)


def write_overview(
    derivative: Path, dataset: Path, *, looked_at: Iterable[str], failed: Mapping[str, str], notify: Notify
) -> Path:
    """Write the page of all scans and the table of participants; return the path of the page.

    Args:
        derivative: Where the results are.
        dataset: The BIDS data set that they are of.
        looked_at: Names of the scans of this run.
        failed: Name → reason of those of them that failed.
        notify: Receives warnings.
    """
    write_participants(derivative, dataset)
    # Each scan has its own record, so that jobs that share the folder do not lose each other's failures.
    return write_index(derivative, looked_at, failed, recorded=recorded_failures, notify=notify)


def recorded_failures(derivative: Path) -> dict[str, str]:
    """Return name → reason of every scan with a record of a failure and no result, whichever run it was."""
    found = {}
    for path in (derivative / FAILURES).glob("*.json"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            place, reason = derivative / record["input_in_dataset"], str(record["error"])
        except FileNotFoundError:
            continue  # another job has just completed it
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                "a record of a failure must be readable JSON",
                received=error,
                where=path,
                remedy="remove it, and run the participant level again",
            ) from error
        if not OutputNames(place.parent, path.stem).provenance.is_file():
            found[path.stem] = reason
    return found


def _select(run: ParticipantRun) -> Found[Path]:
    """Return the selected scans; by default of the contrasts of the model's training data."""
    from halebrain.models.store import load_model

    dataset, query = run.dataset, run.query
    if query.modalities:
        return select_scans(dataset, query)
    training = load_model(run.detect.model).training
    learned = {name for stage in training.values() for name in stage.get("modalities", ())}
    if not learned or not learned <= set(MODALITIES):
        return select_scans(dataset, query)
    every = select_scans(dataset, query)
    chosen = select_scans(dataset, replace(query, modalities=tuple(sorted(learned))))
    reason = f"of other contrasts: the model was trained on {', '.join(sorted(learned))}; --modality includes them"
    other = [LeftOut(path.relative_to(dataset).as_posix(), reason) for path in every if path not in set(chosen)]
    return Found(chosen, [*every.left_out, *other])


def _detect_all(run: ParticipantRun, images: Sequence[Path]) -> "tuple[list[DetectedScan], dict[str, str]]":
    """Process every scan; return the results, and name → reason of those that failed."""
    alone = run.n_procs == 1
    threads = run.threads or max(1, (os.cpu_count() or 1) // run.n_procs)
    _check_model(run.detect, alone=alone)
    done: dict[int, DetectedScan] = {}
    failed: dict[str, str] = {}
    with ProgressBar("Detecting", len(images)) as bar:
        # Steps within a scan are shown for this process only; other processes report finished scans.
        detect = partial(_detect_one, run, bar=bar if alone else None, named=len(images) > 1)
        results = map_items(detect, images, workers=0 if alone else run.n_procs, threads=threads)
        for count, (index, result) in enumerate(results, start=1):
            bar.reach(count)
            name = _name(images[index])
            record = run.output / FAILURES / f"{name}.json"
            if not isinstance(result, HalebrainError):
                record.unlink(missing_ok=True)
                done[index] = result
                continue
            _write_record(record, images[index].relative_to(run.dataset), result)
            if run.stop:
                raise result
            run.detect.notify(f"{name}: {result!s}")
            failed[name] = str(result)
    return [done[index] for index in sorted(done)], dict(sorted(failed.items()))


def _detect_one(run: ParticipantRun, image: Path, *, bar: ProgressBar | None, named: bool) -> "DetectedScan":
    """Process one scan, and advance the progress bar if there is one."""
    from halebrain.inference.cohort import bids_scan
    from halebrain.workflows.detect import detect_scan
    from halebrain.workflows.scan_steps import begin_scan

    detector = _detector(run.detect)
    scan = bids_scan(image, run.dataset)
    assert scan.in_dataset is not None
    steps = None if bar is None else begin_scan(bar, scan, detector.predictor, named=named)
    return detect_scan(detector, scan, run.output / scan.in_dataset.parent, steps=steps)


def _check_model(settings: "DetectSettings", *, alone: bool) -> None:
    """Load the model once before any scan, as problems of model or device affect all scans."""
    find_device(settings.device)
    # Other processes load their own; a copy on a GPU would take their room.
    _detector(settings if alone else replace(settings, device="cpu"))


@lru_cache(maxsize=1)
def _detector(settings: "DetectSettings") -> "Detector":
    """Return the model, which each process loads once."""
    from halebrain.workflows.detect import load_detector

    return load_detector(settings)


def _name(image: Path) -> str:
    return printable(stem_of(image))


def _write_record(path: Path, place: Path, error: HalebrainError) -> None:
    said: dict[str, Any] = {"input_in_dataset": place.as_posix(), "error": str(error)}
    if isinstance(error, UnexpectedError):
        said["traceback"] = error.traceback.splitlines()
    write_text(path, json.dumps(said, indent=2) + "\n")


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
