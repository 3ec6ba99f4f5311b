"""Ages, sexes, sites and diagnoses from a table beside the images, for a manifest that lacks them."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from halebrain.core.errors import DataError
from halebrain.data.datasets.base import SourceResult
from halebrain.data.datasets.tables import find_columns, parse_age, parse_pathology, parse_sex, read_rows
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.tables import Row
from halebrain.io.tree import label

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
        said = {name: _said(own or [], found[name], name) for name in known}
        records.append(_filled(record, said, problems, table))
    return SourceResult(replace(manifest, records=tuple(records)), tuple(problems))


def _said(rows: list[Row], theirs: str, ours: str) -> set[object]:
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
