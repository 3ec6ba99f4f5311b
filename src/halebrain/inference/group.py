"""All scans of a BIDS derivative in one table, with the dictionary of its columns, and the records of its failures."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halebrain.core.document import Document, read_object
from halebrain.core.errors import DataError, HalebrainError, UnexpectedError
from halebrain.core.exam_provenance import ENDING as EXAM_ENDING
from halebrain.core.exam_provenance import read_exam_provenance
from halebrain.core.failures import LOGS, Failures
from halebrain.core.files import write_text
from halebrain.core.leftovers import MARK
from halebrain.core.messages import Notify
from halebrain.core.provenance import read_provenance
from halebrain.inference.exam_outputs import ExamNames
from halebrain.inference.outputs import OutputNames
from halebrain.io.bids import BidsName, read_name
from halebrain.io.tables import MISSING, parse_number, read_table, tsv_text
from halebrain.io.tree import NIFTI

COLUMNS: dict[str, dict[str, Any]] = {
    "participant_id": {"Description": "Participant, with sub-."},
    "session_id": {"Description": "Session, with ses-."},
    "scan": {
        "Description": "Path of the scan in the raw data set; of an exam, that of its reference scan; of a failed "
        "exam, its folder and its name."
    },
    "modality": {"Description": "Contrast of the scan; of an exam, its contrasts, joined by '+'."},
    "status": {"Description": "Status of the scan.", "Levels": {"done": "processed", "failed": "see notes"}},
    "scan_score": {
        "Description": "Mean anomaly score of the highest millilitre, 0 to 1; n/a if the result does not state it."
    },
    "peak_score": {"Description": "Highest anomaly score in a finding, 0 to 1; n/a without findings."},
    "n_findings": {"Description": "Number of connected components of the anomaly mask."},
    "anomaly_volume_ml": {"Description": "Volume of the anomaly mask.", "Units": "mL"},
    "estimated_volume_ml": {
        "Description": "Estimated true volume of the lesions; n/a for exams, outside the range of the masks that the "
        "estimate comes from, and if it is not known for this contrast, threshold and smallest lesion.",
        "Units": "mL",
    },
    "estimated_volume_low_ml": {"Description": "Lower end of its 90 % prediction interval.", "Units": "mL"},
    "estimated_volume_high_ml": {"Description": "Upper end of its 90 % prediction interval.", "Units": "mL"},
    "brain_volume_ml": {"Description": "Volume of the brain mask.", "Units": "mL"},
    "threshold": {"Description": "Threshold of the anomaly score; voxels with at least this score belong to the mask."},
    "threshold_method": {"Description": "Name of the threshold; 'fixed' = set by hand."},
    "n_flags": {"Description": "Number of quality flags."},
    "notes": {
        "Description": "The flags, or the error of a scan that failed, first where the result is of an earlier "
        "run; separated by '; '."
    },
    "model_sha256": {"Description": "Hash of the model."},
}
"""What each column means."""
Row = dict[str, Any]
EARLIER = "the result of an earlier run; the last one failed"
"""Begins the notes of a result that a later run should have replaced."""
_AGAIN = "run the participant level again with --overwrite"


@dataclass(frozen=True, kw_only=True)
class FailureRecord(Document):
    """The record of a scan that failed: its path in the raw data set, why, and the lines of an unexpected traceback."""

    unstated: frozenset[str] = frozenset({"traceback"})
    input_in_dataset: str
    error: str
    traceback: tuple[str, ...] = ()


class FailureRecords(Failures):
    """Failures of the scans of a derivative: each has its own JSON, so that jobs in one folder keep each other's.

    `places` is the name of a scan → its path in the raw data set.
    """

    ending = ".json"

    def __init__(self, derivative: Path, places: Mapping[str, Path], notify: Notify) -> None:
        super().__init__(derivative, notify)
        self._places = places

    def record(self, name: str, error: HalebrainError) -> str:
        """Write the record of a failure, with its traceback where it is unexpected; return the reason."""
        lines = tuple(error.traceback.splitlines()) if isinstance(error, UnexpectedError) else ()
        made = FailureRecord(input_in_dataset=self._places[name].as_posix(), error=str(error), traceback=lines)
        if (path := self._log(name)) is not None:
            write_text(path, json.dumps(made.to_json(), indent=2) + "\n")
        return str(error)


def recorded_failures(derivative: Path) -> dict[str, str]:
    """Return name → reason of every scan or exam whose last run failed, whether or not an earlier one left a result."""
    return {name: record.error for name, record in _failed(derivative)}


def _failed(derivative: Path) -> Iterator[tuple[str, FailureRecord]]:
    """Yield name and record of every scan or exam whose last run failed: one that succeeds removes the record."""
    for path in (derivative / LOGS).glob("*.json"):
        try:
            yield path.stem, read_failure(path)
        except FileNotFoundError:
            continue  # another job has just completed it


def read_failure(path: Path) -> FailureRecord:
    """Return the record in a file; `FileNotFoundError` where another job has just completed the scan."""
    what, remedy = "a record of a failure", "remove it, and run the participant level again"
    rule = f"{what} must be as halebrain bids wrote it"
    return FailureRecord.from_json(read_object(path, what, remedy), rule=rule, where=path, remedy=remedy)


def group_rows(derivative: Path) -> list[Row]:
    """Return one row for each scan with a result and for each that failed, sorted.

    A result whose scan failed in a later run stays, with a note.
    """
    found = [path for place in ("sub-*", "sub-*/**/*") for path in derivative.glob(f"{place}_provenance.json")]
    # A run that was killed may leave the files of a result where they were made.
    complete = [path for path in found if MARK not in str(path.relative_to(derivative))]
    rows = {path: _exam_row(path) if path.name.endswith(EXAM_ENDING) else _done_row(path) for path in complete}
    failed = []
    for name, record in _failed(derivative):
        folder = (derivative / record.input_in_dataset).parent
        results = OutputNames(folder, name).provenance, ExamNames(folder, name).provenance
        there = [rows[result] for result in results if result in rows]
        for row in there:
            notes = [f"{EARLIER}: {record.error}", row["notes"]]
            row["notes"] = _one_line("; ".join(note for note in notes if note))
        failed += [] if there else [_failed_row(record)]
    return sorted([*rows.values(), *failed], key=lambda row: str(row["scan"]))


def group_tsv(rows: list[Row]) -> str:
    """Return the table as TSV text; what is not known is `n/a`."""
    cells = ([MISSING if (value := row.get(name)) in (None, "") else value for name in COLUMNS] for row in rows)
    return tsv_text([list(COLUMNS), *cells])


def _done_row(path: Path) -> Row:
    made = read_provenance(path, remedy=_AGAIN)
    place, volume = made.input_in_dataset or made.input or path.name, made.volume_estimate
    return {
        **_who(place),
        "status": "done",
        "scan_score": made.scan_score,
        "peak_score": _peak(path.with_name(path.name.replace("_provenance.json", "_lesions.tsv"))),
        "n_findings": made.n_lesions,
        "anomaly_volume_ml": made.lesion_volume_ml,
        "estimated_volume_ml": None if volume is None else volume.value_ml,
        "estimated_volume_low_ml": None if volume is None else volume.low_ml,
        "estimated_volume_high_ml": None if volume is None else volume.high_ml,
        "brain_volume_ml": made.qc.brain_volume_ml,
        "threshold": None if made.threshold is None else made.threshold.value,
        "threshold_method": None if made.threshold is None else made.threshold.name,
        "n_flags": len(made.qc.flags),
        "notes": _one_line("; ".join(made.qc.flags)),
        "model_sha256": made.model_sha256,
    }


def _exam_row(path: Path) -> Row:
    made = read_exam_provenance(path)
    place = made.scans[0].provenance.input_in_dataset or path.name
    return {
        **_who(place),
        "modality": "+".join(sorted(scan.contrast or scan.scan for scan in made.scans)),
        "status": "done",
        "scan_score": made.exam_score,
        "peak_score": _peak(path.with_name(path.name.replace("_provenance.json", "_findings.tsv"))),
        "n_findings": made.n_findings,
        "anomaly_volume_ml": made.findings_ml,
        "brain_volume_ml": made.scans[0].provenance.qc.brain_volume_ml,
        "threshold": made.threshold.value,
        "threshold_method": made.threshold.name,
        "n_flags": len(made.flags),
        "notes": _one_line("; ".join(made.flags)),
        "model_sha256": made.model_sha256,
    }


def _failed_row(failure: FailureRecord) -> Row:
    place = failure.input_in_dataset
    who = _who(place) if re.search(f"{NIFTI}$", place) else _who_of_exam(place)
    return {**who, "status": "failed", "notes": _one_line(failure.error)}


def _who(place: str) -> Row:
    return _row_of(place, read_name(Path(place).name.partition(".")[0]))


def _who_of_exam(place: str) -> Row:
    """Return who an exam is of; its place ends in its name, which has no suffix."""
    return {**_row_of(place, read_name(f"{Path(place).name}_exam")), "modality": None}


def _row_of(place: str, name: BidsName | None) -> Row:
    entities = {} if name is None else name.entities
    return {
        "participant_id": f"sub-{entities['sub']}" if "sub" in entities else None,
        "session_id": f"ses-{entities['ses']}" if "ses" in entities else None,
        "scan": place,
        "modality": None if name is None else name.modality,
    }


def _peak(table: Path) -> float | None:
    try:
        scores = [parse_number(row["peak_score"]) for row in read_table(table, what="a lesion table").rows]
    except (HalebrainError, KeyError, ValueError) as error:
        raise DataError("a result must be complete", where=table, remedy="run the participant level again") from error
    return max(scores, default=None)


def _one_line(text: str) -> str:
    return " ".join(text.split())
