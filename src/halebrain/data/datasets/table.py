"""Any CSV or TSV that names the files: one row a scan, or one row a session with a column for each contrast.

Paths are relative to the table's folder or absolute. Only the table is used; its folder is not listed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from halebrain.core.config import Config
from halebrain.core.errors import DataError, MissingInputError
from halebrain.data.datasets.base import SOURCES, Draft, Source, SourceResult
from halebrain.data.datasets.tables import (
    clean_cell,
    find_columns,
    named_column,
    parse_age,
    parse_pathology,
    parse_sex,
)
from halebrain.io.files import split_selection
from halebrain.io.manifest import SPACES, ScanRecord, Space
from halebrain.io.tables import Row, Table, is_table, read_table
from halebrain.io.tree import FileTree, label

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_SPACES = {space.lower(): space for space in SPACES}


class TableSettings(Config):
    """Which table, and its column names.

    Args:
        table: Name of the table in the folder given; `None` = the only CSV or TSV there.
        columns: Column names in the table, `{"subject": "PatientID", "lesion": "gt"}`.
        images: Columns that each hold a scan, with their contrast, `{"t1_path": "T1w", "flair_path": "FLAIR"}`; then
            neither `image` nor `modality` is read.
        modality: Contrast of every scan, where no column says it.
        pathology: Of scans without one in their row; `None` = unknown.
        site: The same for the site.
        space: "native", or the template's name where all scans are registered to it; of scans without one in their row.
    """

    table: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    images: dict[str, str] = Field(default_factory=dict)
    modality: str | None = None
    pathology: str | None = None
    site: str | None = None
    space: Space = "native"


@SOURCES.register("table")
class TableSource(Source):
    """Reads the scans that a table names; given a file instead of a folder, that file is the table.

    Raises:
        ConfigError: A setting names a column that is not ours, or that the table lacks.
        DataError: The table has no column for subject, image or modality.
    """

    Settings = TableSettings
    settings: TableSettings
    layout = "a CSV or TSV with a row a scan (columns subject, image, modality)"
    walks: ClassVar[bool] = False

    @classmethod
    def with_modality(cls, settings: dict[str, Any], modality: str) -> dict[str, Any]:
        """Return the settings in which that is the contrast of scans whose row says none."""
        return {"modality": modality, **settings}

    def __call__(self, root: Path) -> SourceResult:
        """Return the scans that the table names; `root` is its folder or the table itself."""
        if root.is_file():
            return TableSource(self.settings.model_copy(update={"table": root.name}))(root.parent)
        return super().__call__(root)

    def collect(self, tree: FileTree, draft: Draft) -> None:
        """Add every scan whose file is there; report rows without subject or file, and invalid cells."""
        table = self._find(tree.root)
        read = read_table(table)
        if not read.rows:
            raise DataError("a table must hold at least one scan", received="no row", where=table, remedy="add rows")
        names, images = self._columns(read.columns, table)
        people: dict[str, str] = {}
        _report_unread(read, {*names.values(), *images}, draft)
        for line, cells in zip(read.lines, read.rows, strict=True):
            where, row = f"{table.name}, row {line}", {name: clean_cell(cell) for name, cell in cells.items()}
            said = {ours: row.get(theirs, "") for ours, theirs in names.items()}
            subject = label(said["subject"].removeprefix("sub-"))
            if not subject or people.setdefault(subject, said["subject"]) != said["subject"]:
                other = f", its label equals that of '{people[subject]}'" if subject else ""
                draft.report(where, f"the subject '{said['subject']}' has no unique label{other}; it is left out")
                continue
            if images and not any(row.get(column) for column in images):
                draft.report(where, f"no file in {', '.join(images)}; it is left out")
            for column, modality in (images or {names.get("image", ""): said.get("modality", "")}).items():
                if row.get(column):
                    self._add(draft, where, said | {"image": row[column], "modality": modality}, subject, tree.root)
                elif not images:
                    draft.report(where, "no file is named; it is left out")

    def _find(self, folder: Path) -> Path:
        if self.settings.table is not None:
            return folder / self.settings.table
        tables = sorted(path for path in folder.iterdir() if is_table(path))
        if len(tables) != 1:
            received = ", ".join(path.name for path in tables) or "none"
            remedy = "name it in the setting 'table', or give the file itself"
            raise MissingInputError(
                "the folder must hold one CSV or TSV", received=received, where=folder, remedy=remedy
            )
        return tables[0]

    def _columns(self, header: Sequence[str], table: Path) -> tuple[dict[str, str], dict[str, str]]:
        """Return which of the table's columns holds what, and those that each hold a scan, with their contrast."""
        images = {named_column(header, name, where=table): kind for name, kind in self.settings.images.items()}
        found = find_columns(header, self.settings.columns, where=table)
        needed = [] if self.settings.images else ["image"] + ["modality"] * (self.settings.modality is None)
        for name in ("subject", *needed):
            if name not in found:
                remedy = f"name it in the setting 'columns': {{{name}: …}}"
                received = ", ".join(header)
                raise DataError(f"a table needs a column for the {name}", received=received, where=table, remedy=remedy)
        return found, images

    def _add(self, draft: Draft, where: str, said: Row, subject: str, folder: Path) -> None:
        image = _resolve(folder, said["image"])
        modality = said["modality"] or self.settings.modality
        if image is None or not modality:
            draft.report(where, f"no file '{said['image']}'" if image is None else "no modality; it is left out")
            return
        files: dict[str, Path | None] = {}
        for kind in ("brain_mask", "lesion"):
            files[kind] = _resolve(folder, said.get(kind, ""))
            if said.get(kind) and files[kind] is None:
                draft.report(where, f"no file '{said[kind]}'; its scan is listed without a {kind.replace('_', ' ')}")
        age, split, space = said.get("age", ""), said.get("split", ""), said.get("space", "")
        for what, cell, value in (
            ("age", age, parse_age(age)),
            ("split", split, _SPLITS.get(split.lower())),
            ("space", space, _SPACES.get(space.lower())),
        ):
            if cell and value is None:
                draft.report(where, f"'{cell}' is not a valid {what}; it is left out")
        draft.add(
            ScanRecord(
                subject=subject,
                image=image,
                modality=modality,
                session=label(said.get("session", "").removeprefix("ses-")) or None,
                brain_mask=files["brain_mask"],
                lesion=files["lesion"],
                space=_SPACES.get(space.lower(), self.settings.space),
                split=_SPLITS.get(split.lower()),
                pathology=parse_pathology(said.get("pathology", "")) or self.settings.pathology,
                site=said.get("site") or self.settings.site,
                age=parse_age(age),
                sex=parse_sex(said.get("sex", "")),
            )
        )


def _report_unread(table: Table, read: set[str], draft: Draft) -> None:
    """Report every column that names files and is not read, as one with masks under an unknown name."""
    for column in table.columns:
        cells = [cell for row in table.rows if (cell := clean_cell(row[column]))]
        named = [cell for cell in cells if (place := _resolve(table.path.parent, cell)) and place.is_file()]
        if column not in read and named:
            what = f"the column '{column}' names files ('{named[0]}') and is not read"
            draft.report(table.path.name, f"{what}; if they are lesions, state it: columns={{lesion: {column}}}")


def _resolve(folder: Path, cell: str) -> Path | None:
    """Return the file or DICOM folder that a cell names; a leading "/" may stand for the table's own folder."""
    candidates = [folder / cell, folder / cell.lstrip("/")] if cell else []
    places = [(path, split_selection(path)[0]) for path in candidates]
    # A link to a file that is not fetched is read, and fails, alone.
    return next((path for path, place in places if place.exists() or place.is_symlink()), None)
