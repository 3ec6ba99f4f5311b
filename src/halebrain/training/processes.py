"""The processes of one training: they wait for each other, share work out, and one of them tells what goes wrong.

With one process, nothing here does anything.
"""

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import lru_cache
from typing import TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from halebrain.core.errors import QuietExitError, UnexpectedError, WorkerError

T = TypeVar("T")
_PATIENCE = timedelta(days=30)
"""How long a process waits while another reads the scans of a large cohort; one that dies is noticed at once."""
_SHORT = timedelta(seconds=10)
"""How long one that failed waits for the others to say so too."""
_BYTES = 1 << 14
"""Room for one error."""


@contextmanager
def together(fabric: Fabric) -> Iterator[None]:
    """Run a block that every process runs; where it fails in any of them, all of them stop after it.

    The first process raises the error and tells it, the others end without a word.
    """
    if fabric.world_size == 1:
        yield
        return
    error: BaseException | None = None
    try:
        yield
    except Exception as own:
        error = own
    _compare(fabric, error)
    if error is not None:
        raise error


@contextmanager
def in_turn(fabric: Fabric) -> Iterator[None]:
    """Run a block in the first process, then in the first one of each other node, then in all the others.

    What the first has written is there for the others, whether nodes share the folder or not.
    """
    turn = 0 if fabric.is_global_zero else 1 if fabric.local_rank == 0 else 2
    for _ in range(turn):
        _compare(fabric, None)
    with together(fabric):
        yield
    for _ in range(turn, 2):
        _compare(fabric, None)


def share(items: Sequence[T], fabric: Fabric) -> Sequence[T]:
    """Return what this process does of work that any of them may do."""
    return items[fabric.global_rank :: fabric.world_size]


def gather(values: list[float], fabric: Fabric) -> list[float]:
    """Return the values of every process, as many of each, in the order of the processes."""
    if fabric.world_size == 1:
        return values
    own = torch.tensor(values, dtype=torch.float64)
    found = [torch.empty_like(own) for _ in range(fabric.world_size)]
    dist.all_gather(found, own, group=_group())
    return [value for part in found for value in part.tolist()]


@contextmanager
def taking_part(fabric: Fabric) -> Iterator[None]:
    """Around all that the processes do together: only the first leaves the block, and each failure is reported once.

    Raises:
        WorkerError: Another process died.
        QuietExitError: In every process but the first, once it is no longer needed.
    """
    if fabric.world_size == 1:
        yield
        return
    try:
        yield
        _compare(fabric, None)
    except KeyboardInterrupt:
        if not fabric.is_global_zero:
            raise QuietExitError from None
        raise
    except Exception as error:
        if _is_lost_connection(error):
            raise _lost(fabric) from error
        if not isinstance(error, QuietExitError):
            # Where the others do not fail in the same place, they wait for this one, and will see that it ends.
            with suppress(RuntimeError):
                _compare(fabric, error, _SHORT)
        raise
    finally:
        dist.destroy_process_group()
        _group.cache_clear()
    if not fabric.is_global_zero:
        raise QuietExitError


def _lost(fabric: Fabric) -> Exception:
    if not fabric.is_global_zero:
        return QuietExitError(WorkerError.exit_code)
    return WorkerError(
        "every process of a training must run until its end",
        received="one that died",
        remedy="out of memory, or ended by somebody? run the same command again; it resumes",
    )


def _compare(fabric: Fabric, error: BaseException | None, patience: timedelta = _PATIENCE) -> None:
    """Wait for every process; where one of them has an error, the first raises it and the others `QuietExitError`."""
    if fabric.world_size == 1:
        return
    own = torch.zeros(_BYTES, dtype=torch.uint8)
    if error is not None:
        text = _packed(error)
        own[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    found = [torch.empty_like(own) for _ in range(fabric.world_size)]
    dist.all_gather(found, own, group=_group(), async_op=True).wait(patience)
    errors = [bytes(part.tolist()) for part in found if part.any()]
    if errors and fabric.is_global_zero:
        raise error or pickle.loads(errors[0])  # our own bytes
    if errors:
        raise QuietExitError


def _packed(error: BaseException) -> bytes:
    try:
        text = pickle.dumps(error)
        pickle.loads(text)  # our own bytes
    except Exception:
        text = b""
    return text if 0 < len(text) <= _BYTES else pickle.dumps(UnexpectedError.of(RuntimeError(repr(error)[:500])))


def _is_lost_connection(error: Exception) -> bool:
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


@lru_cache(maxsize=1)
def _group() -> "dist.ProcessGroup | None":
    """Return the processes as they speak on the CPU: no device waits, and one may read scans for days."""
    group: dist.ProcessGroup | None = dist.new_group(backend="gloo", timeout=_PATIENCE)
    return group
