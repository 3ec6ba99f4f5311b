"""Files below a folder: recognition of DICOM, choice of one of several series (`PATH#NUMBER`), and checks of links."""

import os
from pathlib import Path

from halebrain.core.errors import DataError, MissingInputError

_MAGIC = b"DICM"
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")
"""Groups with which a header may begin, little-endian: that of the file, or that of the object."""
_POINTERS = (b"/annex/objects/", b"version https://git-lfs")
"""First bytes of git-annex and Git LFS pointer files, which stand in for files that were not fetched."""
_FETCH = "fetch it (datalad get / git annex get)"


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM by its content, with or without the 128 bytes and the mark before the header."""
    try:
        with path.open("rb") as handle:
            start = handle.read(132)
    except OSError:
        return False
    if start[128:] == _MAGIC:
        return True
    if not start.startswith(_FIRST_GROUPS) or len(start) < 132:
        return False
    # pydicom loads where a DICOM is read, and only there.
    from halebrain.io.dicom.headers import is_bare_header

    return is_bare_header(path)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is the system's own (`.DS_Store`, `__MACOSX`)."""
    return name.startswith(".") or name == "__MACOSX"


def missing_file(path: Path, *, what: str = "a scan", remedy: str = "") -> MissingInputError:
    """Return the error for a file that is not there; with a hint for git-annex links whose content is not fetched."""
    if not path.is_symlink():
        return MissingInputError(f"{what} must exist", where=path, remedy=remedy or "check the path given")
    target = path.readlink()
    annexed = ".git" in target.parts and "annex" in target.parts
    return MissingInputError(
        f"{what} must exist",
        received="a link to a file that is not fetched" if annexed else "a broken link",
        where=path,
        remedy=_FETCH if annexed else "copy the file that it points to",
    )


def check_present(path: Path) -> None:
    """Raise if a path does not exist, or is only a pointer file of git-annex or Git LFS."""
    if not path.exists():
        raise missing_file(path)
    if path.is_file() and path.stat().st_size < 1024:
        with path.open("rb") as handle:
            start = handle.read(64)
        if start.startswith(_POINTERS):
            remedy = _FETCH if start.startswith(_POINTERS[0]) else "fetch it (git lfs pull)"
            raise MissingInputError(
                "a scan must exist", received="a pointer file whose content was not fetched", where=path, remedy=remedy
            )


def check_link(path: Path, root: Path) -> None:
    """Refuse a path below `root` that leaves it by a symbolic link, or whose link leads nowhere."""
    if not path.exists():
        raise missing_file(path)
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(
            "a link must stay inside the folder given",
            received="a link to a place outside the folder",
            where=path,
            remedy="copy the files, or give the folder that they are in",
        )


def dicom_files(folder: Path) -> list[Path]:
    """Return every DICOM file below a folder (known by its content), sorted; hidden ones are left out."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        paths = [Path(place) / name for name in [*folders, *sorted(names)] if not is_hidden(name)]
        for path in paths:
            if path.is_symlink():
                check_link(path, folder)
        found += [path for path in paths if path.is_file() and is_dicom(path)]
    return found


def split_selection(path: Path) -> tuple[Path, str | None]:
    """Return the place on disk and the series chosen in it, where one is.

    A path that exists as it stands is never split.

    Example:
        >>> split_selection(Path("export#4"))
        (PosixPath('export'), '4')
    """
    # Unlike `Path.exists`, this is silent about a name that no file can have.
    if os.path.lexists(path) or "#" not in path.name:
        return path, None
    name, _, series = path.name.rpartition("#")
    return (path.with_name(name), series.strip()) if name and series.strip() else (path, None)
