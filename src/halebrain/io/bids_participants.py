"""The table of participants of a derivative: whose results are there, with what the raw data set says of them."""

import csv
import json
from pathlib import Path
from typing import Any

from halebrain.core.atomic import write_text

PARTICIPANTS = "participants.tsv"
_ID = "participant_id"
_MISSING = "n/a"
_KEPT = (_ID, "age", "sex", "handedness", "group")
"""Columns that are taken over. Any other may tell who somebody is, and a derivative is made to be shared."""


def write_participants(derivative: Path, dataset: Path) -> Path | None:
    """Write the participants of a derivative, with age, sex, handedness and group where the raw table has them.

    The validator wants a row for each folder of a participant and no other, so those whose scans all failed are left
    out. Nothing is written where there is no folder yet.

    Args:
        derivative: Where the results are.
        dataset: The raw data set; its table may be absent.

    Returns:
        The path of the table.

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
    said = {name: about for name, about in _dictionary(dataset / "participants.json").items() if name in columns}
    if said:
        write_text(path.with_suffix(".json"), json.dumps(said, indent=2, ensure_ascii=False) + "\n")
    return path


def _read(table: Path) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Return the columns that are kept of a raw table and participant → row; the identifier alone where it is none."""
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
    return [name for name in columns if name in _KEPT], {row[_ID]: row for row in rows}


def _dictionary(path: Path) -> dict[str, Any]:
    """Return what a dictionary of columns says; nothing where there is none that can be read."""
    try:
        said = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
