"""Subject data (age, sex, site, diagnosis) from tables of a data set."""

import importlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from halebrain.core.errors import ConfigError
from halebrain.core.registry import suggestion
from halebrain.io.manifest import HEALTHY, standard_pathology
from halebrain.io.tables import Row, is_missing, parse_years, read_table

_SEXES = {"m": "M", "male": "M", "man": "M", "f": "F", "female": "F", "w": "F", "woman": "F"}
_SEX_CODES = {"1": "M", "2": "F"}
ALIASES: dict[str, tuple[str, ...]] = {
    "subject": ("subject", "subject_id", "participant_id", "participant", "patient_id", "patient", "id"),
    "session": ("session", "session_id", "ses", "visit", "timepoint"),
    "image": ("image", "image_path", "img_path", "scan", "path", "file", "filename"),
    "modality": ("modality", "contrast", "sequence"),
    "brain_mask": ("brain_mask", "brain", "mask_path"),
    "lesion": ("lesion", "lesion_mask", "segmentation", "seg", "seg_path"),
    "pathology": ("pathology", "diagnosis", "group", "dx"),
    "site": ("site", "scanner", "center", "centre", "hospital"),
    "age": ("age",),
    "sex": ("sex", "gender"),
    "split": ("split",),
    "space": ("space",),
}
"""The names under which a column is looked for, whatever their case, where the settings name none."""


def read_rows(path: Path) -> list[Row]:
    """Read a table; cells for missing values become ""."""
    return [{name: clean_cell(cell) for name, cell in row.items()} for row in read_table(path).rows]


def read_sheet(path: Path) -> list[Row] | None:
    """Read the first sheet of an `.xls` file; `None` where no reader for it (xlrd) is installed or it fails."""
    try:
        xlrd = importlib.import_module("xlrd")
        sheet = xlrd.open_workbook(str(path)).sheet_by_index(0)
    except Exception:  # the reader is optional, and so is what it reads
        return None
    header, *rows = [[str(cell.value) for cell in sheet.row(n)] for n in range(sheet.nrows)] or [[]]
    return [{name.strip(): clean_cell(value) for name, value in zip(header, row, strict=False)} for row in rows]


def column(row: Mapping[str, str], *names: str) -> str:
    """Return the first filled cell among the columns `names`, whatever their case; "" where there is none."""
    lowered = {key.lower(): value for key, value in row.items()}
    return next((lowered[name.lower()] for name in names if lowered.get(name.lower())), "")


def find_columns(header: Sequence[str], named: Mapping[str, str], *, where: Path) -> dict[str, str]:
    """Return which of a table's columns holds what: those in `named`, and the others by the names in `ALIASES`."""
    lowered = {name.lower(): name for name in header}
    found = {
        ours: next(lowered[name] for name in names if name in lowered)
        for ours, names in ALIASES.items()
        if lowered.keys() & set(names)
    }
    for ours, theirs in named.items():
        if ours not in ALIASES:
            remedy = suggestion(ours, list(ALIASES))
            raise ConfigError("'columns' maps known columns only", received=repr(ours), where=where, remedy=remedy)
        found[ours] = named_column(header, theirs, where=where)
    return found


def named_column(header: Sequence[str], name: str, *, where: Path) -> str:
    """Return a column as the header writes it, whatever the case of `name`."""
    found = {column.lower(): column for column in header}.get(name.strip().lower())
    if found is None:
        remedy = suggestion(name, list(header))
        raise ConfigError("a named column must be in the table", received=repr(name), where=where, remedy=remedy)
    return found


def parse_age(text: str) -> float | None:
    """Return an age in years, `None` where the text is no number from 0 to 130.

    Example:
        >>> parse_age("89+"), parse_age("n/a")
        (89.0, None)
    """
    try:
        return parse_years(text.strip().rstrip("+yY"))
    except ValueError:
        return None


def parse_sex(text: str) -> str | None:
    """Return "F" or "M" for the usual words, the text itself for others, `None` for none."""
    return _SEXES.get(text.strip().lower(), text.strip()) or None


def parse_pathology(text: str, *, healthy: Iterable[str] = ()) -> str | None:
    """Return "healthy" for the usual words for it and those in `healthy`, the text itself for others, `None` for none.

    Example:
        >>> parse_pathology("HC"), parse_pathology("stroke"), parse_pathology("")
        ('healthy', 'stroke', None)
    """
    return HEALTHY if text.lower() in {word.lower() for word in healthy} else standard_pathology(text) or None


def age_and_sex(rows: Sequence[Row]) -> dict[str, Any]:
    """Return what all rows about a person agree on; `None` where they differ or are empty.

    The sex is in the first column whose name begins with "sex", as a word or by IXI's codes (1 = M, 2 = F).
    """
    ages = {parse_age(column(row, "age")) for row in rows} - {None}
    said = [next((text for name, text in row.items() if name.lower().startswith("sex")), "") for row in rows]
    sexes = {_SEX_CODES.get(text.removesuffix(".0"), parse_sex(text)) for text in said} - {None}
    return {"age": ages.pop() if len(ages) == 1 else None, "sex": sexes.pop() if len(sexes) == 1 else None}


def clean_cell(value: str) -> str:
    """Return a cell without the spaces around it; "" for missing values."""
    text = value.strip()
    return "" if is_missing(text) else text
