"""The table of participants of a derivative: whose results are there, with what the raw data set says of them."""

import csv
import json
from pathlib import Path

from halebrain.core.atomic import write_text

PARTICIPANTS = "participants.tsv"
_ID = "participant_id"
_MISSING = "n/a"


def write_participants(derivative: Path, dataset: Path) -> Path | None:
    """Write the participants of a derivative, in the columns of the raw table; return its path.

    The validator wants a row for each folder of a participant and no other, so those whose scans all failed are left
    out. Nothing is written where there is no folder yet.

    Args:
        derivative: Where the results are.
        dataset: The raw data set; its table may be absent.

    Raises:
        CannotWriteError: The folder cannot be written.
    """
    there = sorted(path.name for path in derivative.glob("sub-*") if path.is_dir())
    if not there:
        return None
    columns, rows = _read(dataset / PARTICIPANTS)
    chosen = [rows.get(name, {_ID: name}) for name in there]
    # Not by csv: tables of BIDS know no quotes, and one in a field is part of it.
    lines = [columns, *([row.get(column, _MISSING) for column in columns] for row in chosen)]
    path = derivative / PARTICIPANTS
    write_text(path, "".join("\t".join(line) + "\n" for line in lines))
    dictionary = dataset / path.with_suffix(".json").name
    if len(columns) > 1 and _is_json(dictionary):
        write_text(path.with_suffix(".json"), dictionary.read_text(encoding="utf-8-sig"))
    return path


def _read(table: Path) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Return the columns of a raw table and participant → row; the identifier alone where it cannot be used."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, delimiter="\t", restval=_MISSING, quoting=csv.QUOTE_NONE)
            columns = list(reader.fieldnames or ())
            # A line with more fields than the heading keeps those that have a name.
            rows = [{name: row[name] or _MISSING for name in columns} for row in reader]
    except (OSError, ValueError, csv.Error):
        columns, rows = [], []
    if _ID not in columns or len(set(columns)) < len(columns):
        return [_ID], {}
    return columns, {row[_ID]: row for row in rows}


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8-sig")), dict)
    except (OSError, ValueError):
        return False
