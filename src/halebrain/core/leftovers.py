"""Temporary files and folders named after their process, so that leftovers of killed processes can be removed."""

import hashlib
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

MARK = ".part-"
"""How the names of temporary files and folders beside results begin."""
_SCRATCH = "halebrain-"
"""How those of folders among the system's temporary files do."""
_OWNED = re.compile(r"([0-9a-f]{8})\.([0-9]+)\.([0-9]*)-")
"""Machine, number and begin of the process, after the mark."""
_OLDER = re.compile(r"[a-z0-9_]{8}(-.*)?|.*-[a-z0-9_]{8}", re.DOTALL)
"""What earlier versions wrote after `.part-`, without a process."""
_ABANDONED_S = 24 * 3600.0
"""Age from which files of another machine, or of an earlier version, are treated as abandoned."""
_LAST_OF_NAME = 48
"""Characters of the final name that a temporary one ends in: all suffixes, and not too long for a file system."""
_swept: set[Path] = set()


def temporary_file(path: Path) -> Path:
    """Make an empty file beside `path`, whose name ends as that of `path` does; its folder must exist."""
    _sweep_once(path.parent)
    handle, name = tempfile.mkstemp(prefix=_prefix(MARK), suffix=f"-{path.name[-_LAST_OF_NAME:]}", dir=path.parent)
    os.close(handle)
    return Path(name)


def temporary_folder(place: Path, mark: str = MARK) -> Path:
    """Make an empty folder in a folder that exists; its name begins with `mark`."""
    _sweep_once(place, mark)
    return Path(tempfile.mkdtemp(prefix=_prefix(mark), dir=place))


def new_scratch_folder(place: Path | None = None) -> Path:
    """Make an empty folder in `place`, or among the system's temporary files, that its maker removes."""
    return temporary_folder(place or Path(tempfile.gettempdir()), _SCRATCH)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give an empty folder among the system's temporary files; it is gone when the block ends."""
    folder = new_scratch_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(place: Path, mark: str = MARK) -> None:
    """Remove what dead processes left in a folder under names that begin with `mark`; that of living ones stays.

    A process of this machine is dead when its number is free or belongs to one that began later. Of another machine
    this is unknown: files not written to for a day are treated as abandoned.
    """
    try:
        found = [path for path in place.iterdir() if path.name.startswith(mark)]
    except OSError:
        return
    for path in found:
        with suppress(OSError):  # another process sweeps too
            # Among the system's temporary files there may be those of other people.
            if path.lstat().st_uid == os.getuid() and _is_left(path, mark):
                _remove(path)


def _sweep_once(place: Path, mark: str = MARK) -> None:
    """Clean a folder when this process first writes there; cleaning it at every write would be slow."""
    if place not in _swept:
        _swept.add(place)
        sweep(place, mark)


def _prefix(mark: str) -> str:
    return f"{mark}{_machine()}.{os.getpid()}.{_began(os.getpid())}-"


def _is_left(path: Path, mark: str) -> bool:
    said = path.name.removeprefix(mark)
    owner = _OWNED.match(said)
    if owner is None and not (mark == MARK and _OLDER.fullmatch(said)):
        return False  # none of ours
    if owner is None or owner[1] != _machine():
        return time.time() - _last_written(path) > _ABANDONED_S
    return not _is_alive(int(owner[2])) or _began(int(owner[2])) != owner[3]


def _is_alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _began(number: int) -> str:
    """Return when a process began, in ticks since the machine did; empty without /proc, and of one that has ended."""
    try:
        # The name of the program, in brackets, may hold anything.
        fields = Path(f"/proc/{number}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


@cache
def _machine() -> str:
    """Return a short name for this machine since it was started, and for the container in which its numbers hold."""
    parts = [socket.gethostname(), sys.platform]
    with suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/pid").readlink())]
    return hashlib.sha256("\n".join(parts).encode(errors="replace")).hexdigest()[:8]


def _last_written(path: Path) -> float:
    """Return when anything was last written into a file or a folder, seconds since 1970."""
    inside: list[Path] = list(path.rglob("*")) if path.is_dir() and not path.is_symlink() else []
    times: list[float] = [one.lstat().st_mtime for one in (path, *inside)]
    return max(times)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
