"""Tables: read from UTF-8 text with a detected delimiter and a header of unique names, and written as TSV text."""

import codecs
import csv
import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halebrain.core.errors import DataError
from halebrain.io.files import missing_file

MISSING = "n/a"
"""A cell without a value, as in BIDS."""
_EMPTY = {"", MISSING, "na", "nan", "none", "null", "unknown", "-"}
_OLDEST = 130
TABLE_SUFFIXES = (".tsv", ".csv")
LIST_SUFFIX = ".txt"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_DELIMITERS = "\t;,"
_STATED = re.compile(r"sep=([\t;,])\r?\n?", re.IGNORECASE)
"""First line that tells Excel the delimiter."""
Row = dict[str, str]


@dataclass(frozen=True)
class Table:
    """A table as its cells stand.

    Args:
        path: Where it is.
        columns: Names in the header, without the spaces around them.
        rows: Column → cell of each row that is not empty; a cell that is not there is "".
        lines: Line of the file at which each row ends, counted from 1.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    lines: tuple[int, ...]

    def named(self, *names: str) -> dict[str, str]:
        """Return ours → theirs for those of `names` that the header holds, in its order, whatever their case."""
        ours = {name.lower(): name for name in names}
        return {ours[column.lower()]: column for column in self.columns if column.lower() in ours}


def is_table(path: Path) -> bool:
    """Return whether a name is that of a table (`.tsv`, `.csv`, whatever the case)."""
    return path.suffix.lower() in TABLE_SUFFIXES


def is_list(path: Path) -> bool:
    """Return whether a name is that of a list of paths (`.txt`, whatever the case)."""
    return path.suffix.lower() == LIST_SUFFIX


def read_table(path: Path, *, what: str = "a table", quotes: bool = True, remedy: str = "") -> Table:
    """Read a table with a header.

    The delimiter is the one of tab, semicolon and comma that parts the header into most columns. Lines may end in LF,
    CRLF or CR; empty rows, and empty cells past the last column, are passed over.

    Args:
        path: The table; its suffix only sets the delimiter of tables with one column.
        what: Its name in messages.
        quotes: Whether a cell may stand in quotes; in tables of BIDS they are part of the cell.
        remedy: What helps where there is no such file.

    Raises:
        MissingInputError: There is no such file.
        DataError: It is no UTF-8 text, has no header or one that names a column twice, a row has more cells than the
            header, or a quote is left open.
    """
    text = read_text(path, what=what, remedy=remedy)
    stated = _STATED.match(text)
    begun = text[stated.end() :] if stated else text.lstrip("\r\n")
    skipped = len(re.findall(r"\r\n|\n|\r", text[: len(text) - len(begun)]))
    text = begun
    delimiter = stated[1] if stated else _delimiter(text, path, quotes=quotes)
    try:
        reader = _reader(text, delimiter, quotes=quotes)
        columns = _columns(next(reader, []), path, what)
        found = [
            (_row(cells, columns, path, line), line)
            for cells in reader
            if (line := reader.line_num + skipped) and _filled(cells)
        ]
    except csv.Error as error:
        raise DataError(
            f"{what} must be readable", received=error, where=path, remedy="close the quote that is left open"
        ) from error
    return Table(path, columns, tuple(row for row, _ in found), tuple(line for _, line in found))


def read_lines(path: Path, *, what: str) -> list[str]:
    """Return the lines of a UTF-8 text that are neither empty nor begin with "#", without the spaces around them."""
    # Not splitlines: a name may hold any of the rarer separators of lines.
    lines = [line.strip() for line in re.split(r"\r\n|\n|\r", read_text(path, what=what))]
    return [line for line in lines if line and not line.startswith("#")]


def read_text(path: Path, *, what: str, remedy: str = "") -> str:
    """Return a UTF-8 text, with or without the mark at its beginning, with line ends unchanged."""
    if not path.is_file():
        raise missing_file(path, what=what, remedy=remedy)
    raw = path.read_bytes()
    if raw.startswith(_UTF16) or b"\0" in raw:
        raise DataError(
            f"{what} must be UTF-8 text",
            received="UTF-16" if raw.startswith(_UTF16) else "zero bytes, as in UTF-16 or binary files",
            where=path,
            remedy='save it again as "CSV UTF-8" or as UTF-8 text',
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{what} must be UTF-8 text",
            received=f"byte {error.start} is not UTF-8",
            where=path,
            remedy='save it again as "CSV UTF-8" or as UTF-8 text',
        ) from error


def parse_number(text: str) -> float:
    """Return a finite number, with a decimal point or comma; else a `ValueError`.

    Example:
        >>> parse_number("40,5"), parse_number(" 7 ")
        (40.5, 7.0)
    """
    number = float(text.replace(",", ".").replace("_", "?"))
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def parse_years(text: str) -> float:
    """Return an age from 0 to 130 years; else a `ValueError`, as for -9 and 999, which stand for none in some tables.

    Example:
        >>> parse_years("40,5")
        40.5
    """
    age = parse_number(text)
    if not 0 <= age <= _OLDEST:
        raise ValueError(text)
    return age


def is_missing(cell: str) -> bool:
    """Return whether a cell is empty, or holds a word that stands for none ("n/a", "NA", "nan").

    Example:
        >>> is_missing("NaN"), is_missing("ms")
        (True, False)
    """
    return cell.strip().lower() in _EMPTY


def _delimiter(text: str, path: Path, *, quotes: bool) -> str:
    """Return the delimiter that parts the header into most cells; if none does, the delimiter of the suffix."""
    usual = "," if path.suffix.lower() == ".csv" else "\t"

    def cells(delimiter: str) -> int:
        try:
            return len(next(_reader(text, delimiter, quotes=quotes), []))
        except csv.Error:
            return 0

    return max(_DELIMITERS, key=lambda delimiter: (cells(delimiter), delimiter == usual))


def _reader(text: str, delimiter: str, *, quotes: bool) -> Any:
    lines = io.StringIO(text, newline="")
    if quotes:
        return csv.reader(lines, delimiter=delimiter, strict=True)
    return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)


def _columns(header: list[str], path: Path, what: str) -> tuple[str, ...]:
    names = [name.strip() for name in header]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise DataError(
            f"{what} needs a header", received="none", where=path, remedy="name the columns in its first line"
        )
    seen: set[str] = set()
    for name in names:
        if name and name.lower() in seen:
            raise DataError(
                f"{what} must name each column once",
                received=f"'{name}' twice (case is ignored)",
                where=path,
                remedy="rename or remove one of the two",
            )
        seen.add(name.lower())
    return tuple(names)


def _filled(cells: list[str]) -> bool:
    return any(cell.strip() for cell in cells)


def _row(cells: list[str], columns: tuple[str, ...], path: Path, line: int) -> Row:
    if _filled(cells[len(columns) :]):
        raise DataError(
            "a row must not have more cells than the header",
            received=f"{len(cells)} for {len(columns)} columns",
            where=f"{path}, line {line}",
            remedy="put a cell that holds the delimiter in quotes, or name every column",
        )
    filled = cells[: len(columns)] + [""] * (len(columns) - len(cells))
    return dict(zip(columns, filled, strict=True))


def number_cell(value: float | None) -> str:
    """Return a number with six digits; n/a where there is none.

    Example:
        >>> number_cell(0.123456789), number_cell(float("nan")), number_cell(None)
        ('0.123457', 'n/a', 'n/a')
    """
    return MISSING if value is None or math.isnan(value) else f"{value:.6g}"


def tsv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return rows, the header first, as TSV text; cells that need it are quoted."""
    buffer = io.StringIO()
    csv.writer(buffer, delimiter="\t", lineterminator="\n").writerows(rows)
    return buffer.getvalue()
