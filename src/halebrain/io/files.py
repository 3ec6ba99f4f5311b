"""Files below a folder: which are DICOM, and which links are followed."""

import os
from pathlib import Path

from halebrain.core.errors import DataError

_MAGIC = b"DICM"


def is_dicom(path: Path) -> bool:
    """Return whether a file says of itself that it is DICOM; its name does not matter."""
    try:
        with path.open("rb") as handle:
            return handle.read(132)[128:] == _MAGIC
    except OSError:
        return False


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is the system's own (`.DS_Store`, `__MACOSX`)."""
    return name.startswith(".") or name == "__MACOSX"


def check_link(path: Path, root: Path) -> None:
    """Refuse a path that leaves a folder by a symbolic link.

    Args:
        path: A file or folder below `root`.
        root: The folder that was given.

    Raises:
        DataError: It leads nowhere, or out of `root`.
    """
    if not path.exists() or not path.resolve().is_relative_to(root.resolve()):
        raise DataError(
            "a link must stay inside the folder given",
            received="one that leads out" if path.exists() else "one that leads nowhere",
            where=path,
            remedy="copy the files, or give the folder that they are in",
        )


def dicom_files(folder: Path) -> list[Path]:
    """Return every DICOM file below a folder (known by its content), sorted; hidden ones are left out.

    Raises:
        DataError: A symbolic link leads out of the folder or nowhere.
    """
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        paths = [Path(place) / name for name in [*folders, *sorted(names)] if not is_hidden(name)]
        for path in paths:
            if path.is_symlink():
                check_link(path, folder)
        found += [path for path in paths if path.is_file() and is_dicom(path)]
    return found
