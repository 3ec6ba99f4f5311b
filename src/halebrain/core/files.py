"""Files written whole or not at all, by one process at a time."""

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from halebrain.core.errors import CannotWriteError, UnavailableError, cannot_write_into
from halebrain.core.leftovers import temporary_file, temporary_folder

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
WAIT_S = 60.0
"""Maximum wait for another process; tasks under a lock take a few seconds at most."""

_AT_ONCE_S = 0.2
"""Enough to take over the lock of a process that died."""


def check_writable(folder: Path) -> None:
    """Refuse an output folder that cannot be made or written into, before anything is computed; makes nothing."""
    place = folder
    while not os.access(place, os.F_OK) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise cannot_write_into(place, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(place, os.W_OK | os.X_OK):
        raise cannot_write_into(place, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place when the block ends without an error.

    It keeps all suffixes of `path` (`.nii.gz`). Files that a killed process left in that folder are removed.
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


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    write_bytes(path, text.encode("utf-8"))


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give an empty temporary folder that becomes `path` when the block ends without an error."""
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


def write_together(last: Path, write: Callable[[Path], None], *, earlier: Iterable[Path] = ()) -> list[Path]:
    """Write several files into the folder of `last`, all of them or none; return the paths.

    Args:
        last: The one whose presence marks a complete result; it takes its place last.
        write: Writes all of them into the temporary folder that it is called with.
        earlier: Files of an earlier result that are removed.
    """
    folder = last.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = temporary_folder(folder)
    except OSError as error:
        raise cannot_write_into(folder, error) from error
    try:
        write(staging)
        # Until all is there again, an older result must not pass for a complete one.
        for path in (last, *earlier):
            path.unlink(missing_ok=True)
        paths = sorted(staging.iterdir(), key=lambda path: path.name == last.name)
        return [path.replace(folder / path.name) for path in paths]
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def file_lock(path: Path, *, wait_s: float = WAIT_S) -> Iterator[None]:
    """Keep every other process and thread that asks for the same path out while the block runs.

    The lock is a hidden file beside `path`, which need not exist; it names its holder and goes when the block ends.
    That of a process of this machine that died is taken over. `UnavailableError` after `wait_s` seconds.
    """
    from filelock import SoftFileLock, Timeout

    # A system file lock would leave its file behind, and removing that file would break the lock.
    place = path.with_name(f".lock-{path.name}")
    lock = SoftFileLock(place, timeout=wait_s)
    try:
        lock.acquire()
    except Timeout as error:
        raise UnavailableError(
            "only one process at a time may change a result",
            received=f"another process that held the lock for more than {wait_s:g} s",
            where=place,
            remedy="try again, or remove that file if no other halebrain process is running",
        ) from error
    except OSError as error:
        raise cannot_write_into(path.parent, error) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock of `path` (`file_lock`) while the block runs, and give `True`; `False` where another has it."""
    with ExitStack() as held:
        try:
            held.enter_context(file_lock(path, wait_s=_AT_ONCE_S))
            is_ours = True
        except UnavailableError:
            is_ours = False
        yield is_ours
