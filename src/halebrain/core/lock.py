"""One process at a time: a lock beside a file that is read, changed and written again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from halebrain.core.errors import UnavailableError, cannot_write_into

WAIT_S = 60.0
"""Maximum wait for another process; tasks under a lock take a few seconds at most."""


@contextmanager
def only_one(path: Path, *, wait_s: float = WAIT_S) -> Iterator[None]:
    """Keep every other process and thread that asks for the same path out while the block runs.

    The lock is a hidden file beside `path` that names its holder and goes when the block ends. That of a process of
    this machine that died is recognised and taken over.

    Args:
        path: What is changed; it need not exist.
        wait_s: Longest wait, seconds.

    Raises:
        UnavailableError: Another process did not release the lock in time.
        CannotWriteError: The folder cannot be written.
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
