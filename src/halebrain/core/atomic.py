"""Files that are written whole or not at all."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from halebrain.core.errors import CannotWriteError, cannot_write_into
from halebrain.core.leftovers import temporary_file, temporary_folder

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place when the block ends without an error.

    Files that a killed process left in that folder are removed.

    The temporary name keeps all suffixes of `path` (`.nii.gz`), so libraries that choose a format by the name work.

    Raises:
        CannotWriteError: The folder cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_file(path)
    except OSError as error:
        raise cannot_write_into(path.parent, error) from error
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise CannotWriteError(
                "the output needs free disk space",
                received=error.strerror,
                where=path,
                remedy="free some space and run the command again",
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give an empty temporary folder that becomes `path` when the block ends without an error.

    Raises:
        CannotWriteError: `path` exists and `overwrite` is not set, or its parent cannot be written.
    """
    if path.exists() and not overwrite:
        raise CannotWriteError("the output must not exist yet", where=path, remedy="choose another or --overwrite")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_folder(path.parent)
    except OSError as error:
        raise cannot_write_into(path.parent, error) from error
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
