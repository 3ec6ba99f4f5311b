"""The table of participants of a derivative, with columns of the raw data set."""

import json
import logging
from pathlib import Path
from typing import Any

from halebrain.core.errors import DataError
from halebrain.core.files import write_text
from halebrain.io.tables import read_table

PARTICIPANTS = "participants.tsv"
_log = logging.getLogger(__name__)
_ID = "participant_id"
_NOT_TAKEN = "age, sex, handedness and group are not copied"
_MISSING = "n/a"
_KEPT = (_ID, "age", "sex", "handedness", "group")
"""Columns that are copied. Others may identify a person, and derivatives are made to be shared."""


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
    if not table.is_file():
        return [_ID], {}
    try:
        read = read_table(table, what="a table of participants", quotes=False)
    except DataError as error:
        # The results are there already; they must not be lost for it.
        _log.warning("%s (%s)", error, _NOT_TAKEN)
        return [_ID], {}
    kept = read.named(*_KEPT)
    if _ID not in kept:
        _log.warning("no column '%s' in '%s' (%s)", _ID, table, _NOT_TAKEN)
        return [_ID], {}
    rows = [{ours: row[theirs].strip() or _MISSING for ours, theirs in kept.items()} for row in read.rows]
    return list(kept), {row[_ID]: row for row in rows}


def _dictionary(path: Path) -> dict[str, Any]:
    """Return what a dictionary of columns says; nothing where there is none that can be read."""
    try:
        said = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
