"""Prefetching of batches by other processes, so that an accelerator does not wait for the CPU."""

import pickle
import signal
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from halebrain.core.errors import WorkerError

Drawn = tuple[torch.Tensor, ...]
"""A batch before any network uses it, on the CPU."""
Draw = Callable[[str, int], Drawn]
"""`(split, step) -> Drawn`; a function of both alone, and picklable."""
_SIGNALS = {signal.SIGINT, signal.SIGTERM}


@dataclass(frozen=True)
class _Batches(Dataset[Drawn | Exception]):
    draw: Draw

    def __getitem__(self, step: int) -> Drawn | Exception:
        try:
            return self.draw("train", step)
        except Exception as error:  # raised in the main process
            return _portable(error)


def prefetch(
    draw: Draw | None, steps: Sequence[int], *, workers: int, pinned: bool = False
) -> Generator[Drawn | None, None, None]:
    """Yield the training batch of each number, in order; `None` where the stage draws it itself (`draw` is `None`).

    A batch depends on its number alone, so the count of processes (0 = this one) changes only the time. Close it to
    end them. `pinned` puts batches where they are copied to a GPU without waiting.
    """
    if draw is None or workers == 0 or not steps:
        yield from (None if draw is None else draw("train", step) for step in steps)
        return
    loader = DataLoader(
        _Batches(draw),
        batch_size=None,
        sampler=steps,
        num_workers=min(workers, len(steps)),
        # Spawned, not forked: torch and CUDA start threads, which a fork would leave locked.
        multiprocessing_context="spawn",
        worker_init_fn=_begin_worker,
        pin_memory=pinned,
    )
    # A signal to the job reaches every process; the training stops between two steps and then ends these.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        batches: Any = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        for drawn in batches:
            if isinstance(drawn, Exception):
                raise drawn
            yield drawn
    finally:
        # An exception keeps this frame, and with it the processes: the program would wait for them at its end, forever.
        batches._shutdown_workers()


@contextmanager
def translate_worker_death() -> Iterator[None]:
    """Turn the death of a data-loading process, raised anywhere in the training, into a `WorkerError` of one line."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise WorkerError(
            "a data-loading process must run until the end of the training",
            received="a process that was killed",
            remedy="out of memory, /dev/shm or open files (ulimit -n)? use fewer data.workers, then run "
            "the same command again; it resumes",
        ) from error


def _portable(error: Exception) -> Exception:
    """Return the error itself where it can be sent to another process, else what it says."""
    error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))  # our own bytes
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _begin_worker(_: int) -> None:
    # Blocked while the process began; from here on the training alone ends it.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
