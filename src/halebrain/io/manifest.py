"""The manifest: a typed table with one row per scan, its files and its split.

This table alone defines a data set; folder names have no meaning. On disk it is a TSV with
BIDS's `n/a` for what is missing, and paths relative to the table's own folder.
"""

import csv
import hashlib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

from halebrain.core.errors import DataError, MissingInputError
from halebrain.core.files import write_text
from halebrain.core.modality import standard_modality
from halebrain.core.registry import suggestion
from halebrain.core.wording import first_of
from halebrain.io.files import split_selection
from halebrain.io.tables import MISSING, is_missing, parse_years, read_table

Split = Literal["train", "val", "test"]
SPLITS: tuple[str, ...] = get_args(Split)
Space = Literal["native", "MNI152NLin2009aSym"]
SPACES: tuple[str, ...] = get_args(Space)
HEALTHY = "healthy"
HEALTHY_WORDS = frozenset(
    {HEALTHY, "control", "controls", "hc", "con", "ctrl", "cn", "normal", "td"}
    | {f"{kind} {who}" for kind in (HEALTHY, "normal") for who in ("control", "controls", "subject", "subjects")}
    | {"healthy volunteer", "healthy volunteers"}
)
"""Words for people without a disease, lower case, with single spaces."""


def standard_pathology(word: str) -> str:
    """Return "healthy" for the usual words for it, and another word itself.

    Example:
        >>> standard_pathology("HC"), standard_pathology("Healthy_Controls"), standard_pathology("ms")
        ('healthy', 'healthy', 'ms')
    """
    return HEALTHY if " ".join(re.split(r"[\s_-]+", word.strip().lower())) in HEALTHY_WORDS else word


@dataclass(frozen=True)
class ScanRecord:
    """One scan of one subject.

    Args:
        subject: Subject label without `sub-`; the unit of splitting.
        image: The scan.
        modality: BIDS suffix ("T1w", "T2w", "FLAIR") or another word for the contrast.
        session: Session label, where there are several.
        brain_mask: Mask on the image's grid; `None` where the image is already stripped.
        lesion: Annotation on the image's grid, every label is lesion; `None` where there is none.
        healthy: The true healthy image of a virtual patient, on the image's grid.
        space: "native", or the template's name where the image is registered already.
        split: "train", "val" or "test"; `None` where not assigned.
        pathology: "healthy", for which the usual words ("Healthy", "control", "HC") are taken too, or the name of the
            disease; `None` where unknown.
        site: Scanner or hospital.
        age: Age in years.
        sex: As the data set gives it ("F", "M").
        entities: Other BIDS entities that distinguish scans of one modality and session: `acq-mprage_run-1`.
    """

    subject: str
    image: Path
    modality: str
    session: str | None = None
    brain_mask: Path | None = None
    lesion: Path | None = None
    healthy: Path | None = None
    space: str = "native"
    split: str | None = None
    pathology: str | None = None
    site: str | None = None
    age: float | None = None
    sex: str | None = None
    entities: str | None = None

    def __post_init__(self) -> None:
        """Take the usual words for healthy as one."""
        if self.pathology is not None:
            object.__setattr__(self, "pathology", standard_pathology(self.pathology))

    @property
    def scan_id(self) -> str:
        """Name of the scan in BIDS entities: `sub-01[_ses-1][_run-1]_FLAIR`."""
        session = f"_ses-{self.session}" if self.session else ""
        entities = f"_{self.entities}" if self.entities else ""
        return f"sub-{self.subject}{session}{entities}_{self.modality}"

    @property
    def exam_id(self) -> str:
        """Name of the exam that it belongs to, those of its subject and session: `sub-01[_ses-1]`."""
        return f"sub-{self.subject}_ses-{self.session}" if self.session else f"sub-{self.subject}"

    @property
    def files(self) -> dict[str, Path]:
        """Its image and the masks that there are, by column."""
        return {name: path for name in PATHS if (path := getattr(self, name)) is not None}

    @property
    def contrast(self) -> str:
        """BIDS suffix of its modality ("T1w" for "t1" or "mprage"), or the word itself where none is known for it."""
        return standard_modality(self.modality)

    @property
    def condition(self) -> str:
        """What the scan shows: "healthy", the name of the disease, or "unknown"."""
        return self.pathology or "unknown"

    @property
    def is_annotated(self) -> bool:
        """Whether the scan has a mask of its lesions; one of a healthy scan is empty and does not count."""
        return self.lesion is not None and not self.is_healthy

    @property
    def is_healthy(self) -> bool:
        """Whether the scan is declared free of disease."""
        return self.pathology == HEALTHY


COLUMNS = tuple(field.name for field in fields(ScanRecord))
_REQUIRED = ("subject", "image", "modality")
PATHS = ("image", "brain_mask", "lesion", "healthy")
"""Columns that name a file."""
_FREE_TEXT = ("session", "pathology", "site", "sex", "entities")
"""Columns in which every word is a value, but for those that other programs write for none ("NA", "nan")."""
_PREFIXES = {"subject": "sub-", "session": "ses-"}
"""What BIDS writes before a label, which a cell may state, too."""


@dataclass(frozen=True)
class Manifest:
    """A checked, ordered table of scans.

    Args:
        records: The rows.
        source: The file that it was read from, for messages.

    Raises:
        DataError: A subject stands in two splits, or two rows are the same scan.
    """

    records: tuple[ScanRecord, ...]
    source: Path | None = None

    def __post_init__(self) -> None:
        self._check_splits()
        self._check_unique()

    @property
    def where(self) -> Path | str:
        """Its file in a message, or "manifest" for one in memory."""
        return self.source or "manifest"

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[ScanRecord]:
        return iter(self.records)

    def select(self, keep: Callable[[ScanRecord], bool]) -> "Manifest":
        """Return the rows for which `keep` is true, in the same order."""
        return replace(self, records=tuple(record for record in self.records if keep(record)))

    def split(self, name: Split) -> "Manifest":
        """Return the rows of one split."""
        return self.select(lambda record: record.split == name)

    def of_contrasts(self, names: Sequence[str]) -> "Manifest":
        """Return the rows of some contrasts, whatever the words for them ("t1" is T1w); () = all rows."""
        wanted = {standard_modality(name) for name in names}
        return self.select(lambda record: not wanted or record.contrast in wanted)

    def joined(self, other: "Manifest") -> "Manifest":
        """Return the rows of both; a scan in both tables is an error, and so is a subject in two splits."""
        return replace(self, records=self.records + other.records)

    def subjects(self) -> list[str]:
        """Return the subjects, sorted, each once."""
        return sorted({record.subject for record in self.records})

    def fingerprint(self) -> str:
        """Return a hash of which scans are in which split, whatever the order of rows or the place on disk."""
        lines = sorted(f"{r.scan_id}\t{r.split}\t{r.pathology}" for r in self.records)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def subset(self, count: int, *, seed: int) -> "Manifest":
        """Return the scans of `count` subjects, drawn by the seed; a smaller subset lies within each larger one.

        Raises:
            DataError: There are fewer subjects.
        """
        # Each subject's place depends on its own name alone, so that adding others does not shuffle the rest.
        subjects = sorted(self.subjects(), key=lambda name: hashlib.sha256(f"{seed}\t{name}".encode()).digest())
        if count > len(subjects):
            raise DataError(
                "a subset cannot have more subjects than there are",
                received=f"{count} of {len(subjects)}",
                where=self.where,
                remedy="ask for fewer",
            )
        chosen = set(subjects[:count])
        return self.select(lambda record: record.subject in chosen)

    def write(self, path: Path) -> None:
        """Write the table as TSV; paths become relative to its folder where they lie below it.

        Raises:
            DataError: The name of a file is no UTF-8.
        """
        buffer = io.StringIO()
        plain = csv.writer(buffer, delimiter="\t", lineterminator="\n")
        quoted = csv.writer(buffer, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_ALL)
        plain.writerow(COLUMNS)
        for record in self.records:
            row = [_to_text(getattr(record, name), path.parent) for name in COLUMNS]
            # Python before 3.13 quotes no carriage return by itself, and would read it back as the end of the row.
            (quoted if any("\r" in cell for cell in row) else plain).writerow(row)
        text = buffer.getvalue()
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            names = [r.scan_id for r in self.records if not r.image.as_posix().isprintable()]
            raise DataError("a file name must be UTF-8", received=", ".join(names[:3]), where=path, remedy="rename it")
        write_text(path, text)

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read and check a table; the delimiter is detected, and the case of column names is ignored.

        Raises:
            MissingInputError: The table or a file that it names does not exist.
            DataError: A column is unknown or missing, a value is impossible, a lesion mask is also another file of its
                row, or a subject is in two splits.
        """
        table = read_table(path, what="a manifest")
        _check_columns(table.columns, path)
        names = table.named(*COLUMNS)
        records = tuple(
            _parse({ours: row[theirs] for ours, theirs in names.items()}, path, line)
            for row, line in zip(table.rows, table.lines, strict=True)
        )
        if not records:
            raise DataError(
                "a manifest must hold at least one scan",
                received="no rows",
                where=path,
                remedy="add a row for each scan",
            )
        return cls(records, source=path)

    def _check_splits(self) -> None:
        seen: dict[str, set[str]] = {}
        for record in self.records:
            if record.split is not None:
                seen.setdefault(record.subject, set()).add(record.split)
        leaks = sorted(subject for subject, splits in seen.items() if len(splits) > 1)
        if leaks:
            raise DataError(
                "a subject must be in one split only",
                received=first_of([f"{s} ({', '.join(sorted(seen[s]))})" for s in leaks]),
                where=self.where,
                remedy="split by subject, not by scan",
            )

    def _check_unique(self) -> None:
        seen: set[str] = set()
        for record in self.records:
            if record.scan_id in seen:
                raise DataError(
                    "a scan must be listed once",
                    received=f"{record.scan_id} twice",
                    where=self.where,
                    remedy="remove one row or give it another session",
                )
            seen.add(record.scan_id)


def splits_by_subject(manifest: Manifest) -> dict[str, str | None]:
    """Return subject → split; that of any of its rows, where others state none, and `None` where none does."""
    splits: dict[str, str | None] = {}
    for record in manifest:
        splits[record.subject] = splits.get(record.subject) or record.split
    return splits


def _check_columns(found: Sequence[str], path: Path) -> None:
    for name in _REQUIRED:
        if name not in map(str.lower, found):
            raise DataError(
                f"a manifest needs the column '{name}'",
                received=", ".join(found),
                where=path,
                remedy=f"columns are {', '.join(COLUMNS)}",
            )
    for name in found:
        if name.lower() not in COLUMNS:
            raise DataError(
                "a manifest takes known columns only",
                received=repr(name),
                where=path,
                remedy=suggestion(name.lower(), list(COLUMNS)),
            )


def _parse(row: Mapping[str, str], path: Path, line: int) -> ScanRecord:
    values: dict[str, object] = {}
    where = f"{path}, line {line}"
    for name in COLUMNS:
        cell = row.get(name, "")
        text = cell.strip()
        # A file's own name may begin or end with a space.
        if name in PATHS and cell != text and (path.parent / cell).exists():
            text = cell
        if text in ("", MISSING):
            if name in _REQUIRED:
                raise DataError(f"'{name}' must be given", where=where, remedy="fill it in or remove the row")
            continue
        if name in _FREE_TEXT and is_missing(text):
            continue
        values[name] = _parse_value(name, text, path.parent, where)
    same = [name for name in PATHS if name != "lesion" and values.get(name) == values.get("lesion")]
    if "lesion" in values and same:
        raise DataError(
            "a lesion mask must be another file than the others of its row",
            received=f"{values['lesion']} under 'lesion' and '{same[0]}'",
            where=where,
            remedy="name the mask under 'lesion', or leave it empty",
        )
    return ScanRecord(**values)  # type: ignore[arg-type]


def _parse_value(name: str, text: str, folder: Path, where: str) -> object:
    if name in PATHS:
        file = folder / text
        # A link to a file that is not fetched is read, and fails, alone.
        place = split_selection(file)[0]
        if not place.exists() and not place.is_symlink():
            raise MissingInputError(
                f"the file named under '{name}' must exist",
                received=file,
                where=where,
                remedy="paths are relative to the manifest's folder",
            )
        return file
    if name == "age":
        try:
            return parse_years(text)
        except ValueError as error:
            raise DataError(
                "'age' must be a number of years from 0 to 130",
                received=repr(text),
                where=where,
                remedy="fix the cell, or leave it empty",
            ) from error
    choices = {"split": SPLITS, "space": SPACES}.get(name)
    if choices and text not in choices:
        raise DataError(
            f"'{name}' must be one of {', '.join(choices)}",
            received=repr(text),
            where=where,
            remedy="fix the cell, or leave it empty",
        )
    return text.removeprefix(_PREFIXES.get(name, ""))


def _to_text(value: object, folder: Path) -> str:
    if value is None:
        return MISSING
    if isinstance(value, Path):
        # The file itself may be a link (git-annex): its name and what lies beside it are those of the link.
        place, base = value.parent.resolve() / value.name, folder.resolve()
        return str(place.relative_to(base)) if place.is_relative_to(base) else str(place)
    return f"{value:g}" if isinstance(value, float) else str(value)
