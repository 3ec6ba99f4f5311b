"""One process at a time: a lock beside a file that is read, changed and written again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from halebrain.core.errors import UnavailableError, cannot_write_into

WAIT_S = 60.0
"""How long another process is waited for; the longest that is done under a lock takes some seconds."""


@contextmanager
def only_one(path: Path, *, wait_s: float = WAIT_S) -> Iterator[None]:
    """Keep every other process and thread that asks for the same path out while the block runs.

    The lock is a hidden file beside `path` that names its holder and goes when the block ends. That of a process of
    this machine that died is recognised and taken over.

    Args:
        path: What is changed; it need not exist.
        wait_s: Longest wait, seconds.

    Raises:
        UnavailableError: Another process did not let go in time.
        CannotWriteError: The folder cannot be written.
    """
    from filelock import SoftFileLock, Timeout

    # A lock of the system's own would leave its file behind for ever: whoever removes it may lock out nobody.
    place = path.with_name(f".lock-{path.name}")
    lock = SoftFileLock(place, timeout=wait_s)
    try:
        lock.acquire()
    except Timeout as error:
        raise UnavailableError(
            "one process at a time changes a result",
            received=f"another that took longer than {wait_s:g} s",
            where=place,
            remedy="try again, or remove that file if no other halebrain runs there",
        ) from error
    except OSError as error:
        raise cannot_write_into(path.parent, error) from error
    try:
        yield
    finally:
        lock.release()
