"""The BIDS App: a BIDS data set to a derivative, by exams or by scans, and the group table."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from halebrain.core.errors import CannotWriteError, DataError, MissingInputError
from halebrain.core.files import write_text
from halebrain.core.leftovers import new_scratch_folder
from halebrain.core.messages import Notify, log_message
from halebrain.core.parallel import HERE, Schedule
from halebrain.core.wording import counted, first_of
from halebrain.inference.group import COLUMNS, EARLIER, FailureRecords, Row, group_rows, group_tsv, recorded_failures
from halebrain.io.bids import read_name
from halebrain.io.bids_derivative import (
    DESCRIPTION,
    check_place,
    read_description,
    write_participants,
)
from halebrain.io.bids_query import MODALITIES, BidsQuery, read_rules, select_scans
from halebrain.io.bids_validator import find_validator, refuse_invalid
from halebrain.io.discovery import Found
from halebrain.io.tree import LeftOut
from halebrain.io.volume import stem_of
from halebrain.workflows.pages import write_index
from halebrain.workflows.settings import WHOLE, BidsSettings, DetectSettings, PartSettings

if TYPE_CHECKING:  # the group level needs no networks
    from halebrain.inference.exam_outputs import DetectedExam
    from halebrain.inference.scans import ScanInput
    from halebrain.workflows.detect import DetectedScan
    from halebrain.workflows.detections import Detections, Run

TABLE = "group_anomaly.tsv"


@dataclass(frozen=True)
class GroupResults:
    """What the group level wrote: the table, and the page of all scans."""

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
    dataset: Path,
    output: Path,
    settings: BidsSettings,
    detect: DetectSettings,
    *,
    schedule: Schedule = HERE,
    part: PartSettings = WHOLE,
) -> "Detections[DetectedScan]":
    """Process the selected scans of a data set alone; one that fails leaves a record and does not stop the others.

    `schedule` says where, and `part` which of them.
    """
    from halebrain.workflows.detect import run_scans

    scans = _selected(dataset, output, settings, detect)
    scans = Found(part.own(scans), scans.left_out)
    places = {scan.name: scan.in_dataset for scan in scans if scan.in_dataset is not None}
    with _temporary_files_in(settings.work_dir):
        return run_scans(scans, _run(dataset, output, settings, detect, places, schedule))


def run_exam_participants(
    dataset: Path,
    output: Path,
    settings: BidsSettings,
    detect: DetectSettings,
    *,
    schedule: Schedule = HERE,
    part: PartSettings = WHOLE,
) -> "Detections[DetectedExam]":
    """Process the selected scans of a data set, all of a participant and session together.

    `schedule` says where, and `part` which of them.
    """
    from halebrain.inference.exams import exams_of_dataset
    from halebrain.workflows.exam import run_exams

    scans = _selected(dataset, output, settings, detect)
    exams = Found(part.own(exams_of_dataset(scans)), scans.left_out)
    places = {exam.name: exam.folder / exam.name for exam in exams}
    with _temporary_files_in(settings.work_dir):
        run = _run(dataset, output, settings, detect, places, schedule)
        return run_exams(exams, run, fusion=settings.fusion)


def _selected(dataset: Path, output: Path, settings: BidsSettings, detect: DetectSettings) -> "Found[ScanInput]":
    """Return the scans of a data set that are asked for."""
    from halebrain.inference.scans import bids_scans

    check_place(output, dataset)
    _check_dataset(dataset, validate=not settings.skip_bids_validation, notify=detect.notify)
    query = _query(settings, detect.notify)
    images = _select(dataset, query, detect.model)
    _tell_absent(query, images, detect.notify)
    return Found(bids_scans(images, dataset), images.left_out)


def _run(
    dataset: Path,
    output: Path,
    settings: BidsSettings,
    detect: DetectSettings,
    places: Mapping[str, Path],
    schedule: Schedule,
) -> "Run":
    from halebrain.workflows.detections import Run

    return Run(
        output,
        detect,
        FailureRecords(output, places, detect.notify),
        dataset=dataset,
        schedule=schedule,
        stop=settings.stop_on_first_crash,
        recorded=recorded_failures,
    )


def _query(settings: BidsSettings, notify: Notify) -> BidsQuery:
    """Return which scans are asked for; filters of suffixes that are not processed are reported."""
    rules, others = ({}, []) if settings.bids_filter_file is None else read_rules(settings.bids_filter_file)
    if others:
        notify(f"warning: the filters {', '.join(others)} match no suffix that is processed")
    return BidsQuery(settings.participant_label, settings.session_label, settings.modality, rules)


def _tell_absent(query: BidsQuery, images: Iterable[Path], notify: Notify) -> None:
    """Report participants and sessions that were asked for by name, and have no scan that is processed."""
    names = [read_name(stem_of(image)) for image in images]
    for key, what, labels in (("sub", "participant", query.participants), ("ses", "session", query.sessions)):
        there = {name.entities.get(key) for name in names if name is not None}
        if absent := sorted({label.removeprefix(f"{key}-") for label in labels} - there):
            have = "has" if len(absent) == 1 else "have"
            listed = ", ".join(f"{key}-{label}" for label in absent)
            notify(f"warning: {counted(len(absent), what)} of --{what}-label {have} no scan to process: {listed}")


def run_group(derivative: Path, dataset: Path, *, notify: Notify = log_message) -> GroupResults:
    """Write the table of all results, its dictionary and the page of all scans."""
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
    write_participants(derivative, dataset)
    index = write_index(derivative, names, {}, recorded=recorded_failures, notify=notify)
    if failed := [row["scan"] for row in rows if row["status"] == "failed"]:
        said = f"{counted(len(failed), 'scan')} failed and {'has' if len(failed) == 1 else 'have'} no result"
        notify(f"warning: {said}: {', '.join(failed)}")
    if earlier := [row["scan"] for row in rows if (row["notes"] or "").startswith(EARLIER)]:
        notify(
            f"warning: {counted(len(earlier), 'result')} of an earlier run, as the last one failed: {first_of(earlier)}"
        )
    if len(models := {row.get("model_sha256") for row in rows if row["status"] == "done"}) > 1:
        notify(f"warning: the results are of {len(models)} models (column model_sha256)")
    return GroupResults(rows, path, index)


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


@contextmanager
def _temporary_files_in(folder: Path | None) -> Iterator[None]:
    """Let temporary files of this process and of those that it starts lie in `folder`.

    `None` = where they always do.
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
