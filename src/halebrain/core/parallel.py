"""Apply one function to many items in several processes, where one that dies affects its own item only, or threads."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from multiprocessing import connection
from typing import TypeVar

from halebrain.core.errors import HalebrainError, UnexpectedError, WorkerError, unexpected_as_error

T = TypeVar("T")
R = TypeVar("R")
_WAITING_PER_WORKER = 2
"""Items handed out at once for each worker: enough to keep it busy, few enough to bound the memory."""


def map_items(
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    workers: int,
    threads: int = 1,
    executor: Executor | None = None,
) -> Iterator[tuple[int, R | HalebrainError]]:
    """Yield `(index, function(item))` as they finish; an error is yielded in place of a result, never raised.

    Unexpected exceptions become an `UnexpectedError`, with the traceback. With processes started here, an item whose
    process dies (out of memory, a crash in a library) becomes a `WorkerError`; the others go on. A broken `executor`
    gives a `WorkerError` for each remaining item.

    Args:
        function: Picklable, unless `workers` is 0.
        items: What it is called with.
        workers: Processes; 0 = none, in this one.
        threads: Threads that each process may use.
        executor: Any executor of `concurrent.futures` (a Dask client's `get_executor()`, say), not our own.
    """
    if executor is not None:
        try:
            yield from _through(executor, function, items, range(len(items)), workers)
        except _BrokenError as crash:
            for place in (*crash.suspects, *crash.left):
                yield (
                    place,
                    WorkerError(
                        "an executor must stay available until the end",
                        received="a broken executor",
                        remedy="start it again and run the same command; it resumes",
                    ),
                )
    elif workers == 0:
        for index, item in enumerate(items):
            yield index, _attempt(function, item)
    else:
        yield from _through_processes(function, items, workers, threads)


def map_threads(function: Callable[[T], R], items: Sequence[T], *, threads: int) -> list[R]:
    """Return `function(item)` of each item in order, computed in threads; the first error in that order is raised.

    The libraries get one thread for each item, so the results are the same to the bit whatever the number of threads.

    Args:
        function: Releases the interpreter for most of its time, as NumPy, SciPy and torch do, or waits.
        items: What it is called with. A single one is processed in this thread, with the threads that libraries have.
        threads: How many items at once.
    """
    if len(items) <= 1:
        return [function(item) for item in items]
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # also of threads that begin from now on
    try:
        if threads <= 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(min(threads, len(items))) as pool:
            waiting = [pool.submit(function, item) for item in items]
            try:
                return [future.result() for future in waiting]
            finally:
                for future in waiting:
                    future.cancel()
    finally:
        torch.set_num_threads(before)


def _attempt(function: Callable[[T], R], item: T) -> R | HalebrainError:
    try:
        with unexpected_as_error():
            return function(item)
    except HalebrainError as error:  # whatever goes wrong with one item is that item's result
        return error


def _through(
    executor: Executor, function: Callable[[T], R], items: Sequence[T], places: Sequence[int], workers: int
) -> Iterator[tuple[int, R | HalebrainError]]:
    """Yield as `map_items`; raise `_BrokenError` with the places that have no result where processes died."""
    left, broken = list(places), list[int]()
    pending: dict[Future[R | HalebrainError], int] = {}
    try:
        while (left and not broken) or pending:
            while left and not broken and len(pending) < _WAITING_PER_WORKER * max(workers, 1):
                place = left.pop(0)
                try:
                    pending[executor.submit(_attempt, function, items[place])] = place
                except BrokenExecutor:
                    broken.append(place)
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                place = pending.pop(future)
                try:
                    result = future.result()
                except BrokenExecutor:
                    broken.append(place)
                    continue
                except Exception as error:  # a result that cannot be brought back, or a cluster's own failure
                    result = UnexpectedError.of(error)
                yield place, result
    finally:
        # Where the caller stops (an interrupt, a full disk), what has not begun never begins.
        for future in pending:
            future.cancel()
    if broken:
        raise _BrokenError(suspects=sorted(broken), left=left)


class _BrokenError(Exception):
    def __init__(self, suspects: list[int], left: list[int]) -> None:
        super().__init__(suspects, left)
        self.suspects, self.left = suspects, left


def _through_processes(
    function: Callable[[T], R], items: Sequence[T], workers: int, threads: int
) -> Iterator[tuple[int, R | HalebrainError]]:
    left = list(range(len(items)))
    while left:
        try:
            with _pool(workers, threads) as pool:
                yield from _through(pool, function, items, left, workers)
            return
        except _BrokenError as crash:
            left = crash.left
            # To find the item that killed the process, each one in flight is run again alone.
            for place in crash.suspects:
                try:
                    with _pool(1, threads) as pool:
                        yield from _through(pool, function, items, [place], 1)
                except _BrokenError:
                    yield (
                        place,
                        WorkerError(
                            "a worker process must finish normally",
                            received="one that was killed",
                            remedy="it may have run out of memory: use fewer --workers or a larger machine",
                        ),
                    )


def _pool(workers: int, threads: int) -> ProcessPoolExecutor:
    # Spawned, not forked: torch and ITK start threads, which a fork would leave locked.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(threads,))


def _begin_worker(threads: int) -> None:
    # Ctrl-C reaches every process of a terminal; only the parent reports it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        os.environ[name] = str(threads)
    import torch

    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    """Exit when the parent process has ended, for any reason; otherwise a worker would wait forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
