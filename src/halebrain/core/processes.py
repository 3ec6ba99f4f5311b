"""Processes of this machine: one item at a time in each, and one that dies affects only its own item."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from multiprocessing import connection
from typing import TypeVar

from halebrain.core.errors import UnexpectedError, WorkerError
from halebrain.core.worker import Outcome, attempt, set_threads

T = TypeVar("T")
R = TypeVar("R")


def run_in_processes(
    function: Callable[[T], R], items: Sequence[T], *, workers: int, threads: int
) -> Iterator[tuple[int, Outcome[R]]]:
    """Yield the place and the outcome of each item as it is finished.

    An item whose process dies is tried once more after all others, alone, when it has the memory of the machine to
    itself; then its outcome is a `WorkerError`.

    Args:
        function: Can be pickled.
        items: What it is called with.
        workers: Processes, one or more.
        threads: CPU threads of each.
    """
    died: list[int] = []
    for place, outcome in _once(function, items, range(len(items)), min(workers, len(items)), threads):
        if outcome is None:
            died.append(place)
        else:
            yield place, outcome
    for place, outcome in _once(function, items, died, min(1, len(died)), threads):
        yield place, outcome or Outcome(worker_died("it may have run out of memory: use fewer --workers"))


def worker_died(remedy: str) -> WorkerError:
    """Return the error of an item whose worker died, and died again at the second try."""
    return WorkerError("a worker process must finish normally", received="one that was killed twice", remedy=remedy)


def _once(
    function: Callable[[T], R], items: Sequence[T], places: Sequence[int], workers: int, threads: int
) -> Iterator[tuple[int, Outcome[R] | None]]:
    """Yield the place and the outcome of each item, `None` where its process died."""
    # A pool whose process dies breaks as a whole, so each process is a pool: it is known which item was in it.
    idle, left = [_pool(threads) for _ in range(workers)], iter(places)
    running: dict[Future[Outcome[R]], tuple[int, ProcessPoolExecutor]] = {}
    try:
        while True:
            while idle and (place := next(left, None)) is not None:
                pool = idle.pop()
                running[pool.submit(attempt, function, items[place])] = place, pool
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                place, pool = running.pop(future)
                outcome: Outcome[R] | None
                try:
                    outcome = future.result()
                except BrokenExecutor:
                    pool.shutdown(wait=False)
                    pool, outcome = _pool(threads), None
                except Exception as error:  # a result that cannot be brought back
                    outcome = Outcome(UnexpectedError.of(error))
                idle.append(pool)
                yield place, outcome
    finally:
        # Where the caller stops (an interrupt, a full disk), what has not begun never begins.
        for pool in (*idle, *(pool for _, pool in running.values())):
            pool.shutdown(cancel_futures=True)


def _pool(threads: int) -> ProcessPoolExecutor:
    # Spawned, not forked: torch and ITK start threads, which a fork would leave locked.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=_begin_worker, initargs=(threads,))


def _begin_worker(threads: int) -> None:
    # Ctrl-C reaches every process of a terminal; only the parent reports it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    set_threads(threads)


def _end_with_parent() -> None:
    """Exit when the parent process has ended, for any reason; otherwise a worker would wait forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
