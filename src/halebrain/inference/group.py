"""All scans of a BIDS derivative in one table, with the dictionary of its columns."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halebrain.core.document import Document, read_object
from halebrain.core.errors import DataError, HalebrainError
from halebrain.core.provenance import read_provenance
from halebrain.io.bids import read_name
from halebrain.io.tables import MISSING, parse_number, read_table, tsv_text

FAILURES = "logs"
"""Folder of one JSON for each scan that failed."""
COLUMNS: dict[str, dict[str, Any]] = {
    "participant_id": {"Description": "Participant, with sub-."},
    "session_id": {"Description": "Session, with ses-."},
    "scan": {"Description": "Path of the scan in the raw data set."},
    "modality": {"Description": "Contrast of the scan."},
    "status": {"Description": "Status of the scan.", "Levels": {"done": "processed", "failed": "see notes"}},
    "scan_score": {
        "Description": "Mean anomaly score of the highest millilitre, 0 to 1; n/a if the result does not state it."
    },
    "peak_score": {"Description": "Highest anomaly score in a finding, 0 to 1; n/a without findings."},
    "n_findings": {"Description": "Number of connected components of the anomaly mask."},
    "anomaly_volume_ml": {"Description": "Volume of the anomaly mask.", "Units": "mL"},
    "brain_volume_ml": {"Description": "Volume of the brain mask.", "Units": "mL"},
    "threshold": {"Description": "Threshold of the anomaly score; voxels with at least this score belong to the mask."},
    "threshold_method": {"Description": "Name of the threshold; 'fixed' = set by hand."},
    "n_flags": {"Description": "Number of quality flags."},
    "notes": {"Description": "The flags, or the error of a scan that failed; separated by '; '."},
    "model_sha256": {"Description": "Hash of the model."},
}
"""What each column means."""
Row = dict[str, Any]
_AGAIN = "run the participant level again with --overwrite"


@dataclass(frozen=True, kw_only=True)
class FailureRecord(Document):
    """The record of a scan that failed.

    Args:
        input_in_dataset: Path of the scan in the raw data set.
        error: Why.
        traceback: Lines of the traceback of an unexpected error.
    """

    unstated: frozenset[str] = frozenset({"traceback"})
    input_in_dataset: str
    error: str
    traceback: tuple[str, ...] = ()


def read_failure(path: Path) -> FailureRecord:
    """Return the record in a file.

    Raises:
        DataError: It is damaged.
        FileNotFoundError: There is no such file: another job has just completed the scan.
    """
    what, remedy = "a record of a failure", "remove it, and run the participant level again"
    rule = f"{what} must be as halebrain bids wrote it"
    return FailureRecord.from_json(read_object(path, what, remedy), rule=rule, where=path, remedy=remedy)


def group_rows(derivative: Path) -> list[Row]:
    """Return one row for each scan with a result and for each that failed, sorted.

    Raises:
        DataError: A result or a record of a failure is damaged.
    """
    found = [path for place in ("sub-*", "sub-*/**/*") for path in derivative.glob(f"{place}_provenance.json")]
    rows = [_done_row(path) for path in found]
    done = {row["scan"] for row in rows}
    failed = [_failed_row(path) for path in (derivative / FAILURES).glob("*.json")]
    rows += [row for row in failed if row["scan"] not in done]
    return sorted(rows, key=lambda row: str(row["scan"]))


def group_tsv(rows: list[Row]) -> str:
    """Return the table as TSV text; what is not known is `n/a`."""
    cells = ([MISSING if (value := row.get(name)) in (None, "") else value for name in COLUMNS] for row in rows)
    return tsv_text([list(COLUMNS), *cells])


def _done_row(path: Path) -> Row:
    made = read_provenance(path, remedy=_AGAIN)
    place = made.input_in_dataset or made.input or path.name
    return {
        **_who(place),
        "status": "done",
        "scan_score": made.scan_score,
        "peak_score": _peak(path.with_name(path.name.replace("_provenance.json", "_lesions.tsv"))),
        "n_findings": made.n_lesions,
        "anomaly_volume_ml": made.lesion_volume_ml,
        "brain_volume_ml": made.qc.brain_volume_ml,
        "threshold": None if made.threshold is None else made.threshold.value,
        "threshold_method": None if made.threshold is None else made.threshold.name,
        "n_flags": len(made.qc.flags),
        "notes": _one_line("; ".join(made.qc.flags)),
        "model_sha256": made.model_sha256,
    }


def _failed_row(path: Path) -> Row:
    failure = read_failure(path)
    return {**_who(failure.input_in_dataset), "status": "failed", "notes": _one_line(failure.error)}


def _who(place: str) -> Row:
    name = read_name(Path(place).name.partition(".")[0])
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
