"""Batches that other processes draw ahead, so that an accelerator does not wait for the CPU."""

import pickle
import signal
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from halebrain.core.errors import WorkerError

Drawn = tuple[torch.Tensor, ...]
"""What a batch needs before any network sees it, on the CPU."""
Draw = Callable[[str, int], Drawn]
"""`(split, step) -> Drawn`; a function of both alone, and picklable."""
_SIGNALS = {signal.SIGINT, signal.SIGTERM}


@dataclass(frozen=True)
class _Batches(Dataset[Drawn | Exception]):
    draw: Draw

    def __getitem__(self, step: int) -> Drawn | Exception:
        try:
            return self.draw("train", step)
        except Exception as error:  # raised where it is told to somebody, as what it is
            return _portable(error)


def draw_ahead(
    draw: Draw | None, steps: range, *, workers: int, pinned: bool = False
) -> Generator[Drawn | None, None, None]:
    """Yield the training batch of each step, in order; `None` where the stage is to draw it itself.

    A batch hangs on its step alone, so the number of processes changes nothing but the time. Close it to end them.

    Args:
        draw: Draws a batch; `None` = the stage cannot tell it apart from what its networks do.
        steps: Which ones.
        workers: Processes, of one thread each; 0 = this one draws each batch when its turn comes.
        pinned: Put batches where they are copied to a GPU without waiting.
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
    # What ends a whole job reaches every process of it; the training stops between two steps, and they with it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        batches = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    for drawn in batches:
        if isinstance(drawn, Exception):
            raise drawn
        yield drawn


@contextmanager
def told_of_lost_processes() -> Iterator[None]:
    """Turn the death of a process that draws, which torch raises wherever the training is just then, into one line.

    Raises:
        WorkerError: A process died.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise WorkerError(
            "a process that draws batches must last to the end of the training",
            received="one that was killed",
            remedy="its memory, /dev/shm or the number of open files (ulimit -n) may have run out: fewer data.workers; "
            "the same command goes on",
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
