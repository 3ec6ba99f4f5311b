"""Subject data (age, sex, site, diagnosis) from tables of a data set, also for a manifest that lacks them."""

import importlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from halebrain.core.errors import ConfigError, DataError
from halebrain.core.registry import suggestion
from halebrain.data.datasets.base import SourceResult
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.tables import Row, parse_number, read_table
from halebrain.io.tree import label

T = TypeVar("T")
_EMPTY = {"", "n/a", "na", "nan", "none", "null", "unknown", "-"}
_SEXES = {"m": "M", "male": "M", "man": "M", "f": "F", "female": "F", "w": "F", "woman": "F"}
_SEX_CODES = {"1": "M", "2": "F"}
_HEALTHY = {"healthy", "control", "controls", "hc", "con", "ctrl", "cn", "normal", "healthy control", "td"}
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
}
"""The names under which a column is looked for, whatever their case, where the settings name none."""


def read_rows(path: Path) -> list[Row]:
    """Read a table; cells for missing values become "".

    Raises:
        MissingInputError: There is no such file.
        DataError: It is no table.
    """
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
    """Return which of a table's columns holds what: those in `named`, and the others by the names in `ALIASES`.

    Raises:
        ConfigError: `named` holds a key that is not one of `ALIASES`, or a column that the table lacks.
    """
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
    """Return a column as the header writes it, whatever the case of `name`.

    Raises:
        ConfigError: The table has none of that name.
    """
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
        age = parse_number(text.strip().rstrip("+yY"))
    except ValueError:
        return None
    return age if 0 <= age <= 130 else None


def parse_sex(text: str) -> str | None:
    """Return "F" or "M" for the usual words, the text itself for others, `None` for none."""
    return _SEXES.get(text.strip().lower(), text.strip()) or None


def parse_pathology(text: str, *, healthy: Iterable[str] = ()) -> str | None:
    """Return "healthy" for the usual words for it and those in `healthy`, the text itself for others, `None` for none.

    Example:
        >>> parse_pathology("HC"), parse_pathology("stroke"), parse_pathology("")
        ('healthy', 'stroke', None)
    """
    return "healthy" if text.lower() in _HEALTHY | {word.lower() for word in healthy} else text or None


def sex_of(row: Mapping[str, str]) -> str | None:
    """Return the sex in the first column whose name begins with "sex", as a word or by IXI's codes (1 = M, 2 = F)."""
    text = next((value for name, value in row.items() if name.lower().startswith("sex")), "")
    return _SEX_CODES.get(text.removesuffix(".0"), parse_sex(text))


def the_one(values: Iterable[T | None]) -> T | None:
    """Return the value that all rows of a person agree on, `None` if they differ or are empty."""
    said = {value for value in values if value is not None}
    return said.pop() if len(said) == 1 else None


def clean_cell(value: str) -> str:
    """Return a cell without the spaces around it; "" for missing values."""
    text = value.strip()
    return "" if text.lower() in _EMPTY else text


_PARSERS: dict[str, Callable[[str], object]] = {
    "age": parse_age,
    "sex": parse_sex,
    "site": str,
    "pathology": parse_pathology,
}


def add_people(manifest: Manifest, table: Path, columns: Mapping[str, str] | None = None) -> SourceResult:
    """Return the manifest with missing subject data filled in from a table.

    A row is about a subject, or about one session of it where the table has a column for the session. Subjects are
    compared by their letters and digits, so `sub-01_a` is `01a`.

    Args:
        manifest: The scans.
        table: A CSV or TSV with a column for the subject, and some of age, sex, site and pathology.
        columns: Column names in the table, `{"age": "Age at scan"}`; the usual names are known.

    Returns:
        The manifest, and a line for each subject that is missing in the table or differs from it.

    Raises:
        MissingInputError: There is no such table.
        ConfigError: `columns` names one that is not there.
        DataError: The table has no column for the subject, or none of the others.
    """
    rows = read_rows(table)
    found = find_columns(list(rows[0]) if rows else [], columns or {}, where=table)
    known = [name for name in _PARSERS if name in found]
    if "subject" not in found or not known:
        rule = f"a table of people needs a column for the subject and one of {', '.join(_PARSERS)}"
        raise DataError(rule, received=", ".join(rows[0]) if rows else "no row", where=table, remedy="name them")
    people: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        session = label(row.get(found.get("session", ""), "").removeprefix("ses-"))
        people[label(row[found["subject"]].removeprefix("sub-")), session].append(row)
    problems: dict[str, None] = {}
    records = []
    for record in manifest:
        subject = label(record.subject)
        own = people.get((subject, label(record.session or ""))) or people.get((subject, ""))
        if own is None:
            problems[f"sub-{record.subject}: not in {table.name}"] = None
        said = {name: _parsed_values(own or [], found[name], name) for name in known}
        records.append(_filled(record, said, problems, table))
    return SourceResult(replace(manifest, records=tuple(records)), tuple(problems))


def _parsed_values(rows: list[Row], theirs: str, ours: str) -> set[object]:
    """Return every value that the rows give; more than one is a contradiction."""
    return {value for row in rows if row[theirs] and (value := _PARSERS[ours](row[theirs])) is not None}


def _filled(record: ScanRecord, said: Mapping[str, set[object]], problems: dict[str, None], table: Path) -> ScanRecord:
    changes: dict[str, object] = {}
    for name, values in said.items():
        have = getattr(record, name)
        told = values | ({have} if have is not None else set())
        if len(told) > 1:
            listed = " and ".join(sorted(f"'{value}'" for value in told))
            kept = "left out" if have is None else "kept unchanged"
            problems[f"sub-{record.subject}: with {table.name} its {name} is {listed}; it is {kept}"] = None
        elif values and have is None:
            changes[name] = next(iter(values))
    return replace(record, **changes)  # type: ignore[arg-type]
