"""Apply one function to many items: in this process, in others of this machine, or on a cluster, with equal results."""

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from halebrain.core.clusters import run_on_dask, run_on_slurm
from halebrain.core.errors import HalebrainError
from halebrain.core.messages import Notify, log_message
from halebrain.core.processes import run_in_processes
from halebrain.core.worker import Outcome, attempt, relay

T = TypeVar("T")
R = TypeVar("R")
ExecutorName = Literal["processes", "dask", "submitit"]


@dataclass(frozen=True)
class Schedule:
    """Where items are processed.

    Args:
        workers: Items at once, one in each process; 0 = in this process, or by all workers of a Dask cluster.
        threads: CPU threads of each worker; `None` = the cores of this machine shared out, or those that a worker of a
            cluster has.
        executor: "processes" of this machine, "dask", or "submitit" (SLURM).
        dask_address: Address of the Dask scheduler.
        dask_scheduler_file: The file that the Dask scheduler wrote.
        slurm: "key=value" of `sbatch`.
        output: Folder of the results, in which SLURM jobs keep their files.
    """

    workers: int = 0
    threads: int | None = 1
    executor: ExecutorName = "processes"
    dask_address: str | None = None
    dask_scheduler_file: Path | None = None
    slurm: tuple[str, ...] = ()
    output: Path = Path()

    @property
    def is_here(self) -> bool:
        """Whether everything is done in this process."""
        return self.executor == "processes" and self.workers == 0

    @property
    def is_on_cluster(self) -> bool:
        """Whether workers are not processes of this one: it has neither their devices nor their memory."""
        return self.executor != "processes"

    def relayed(self, notify: Notify) -> Notify:
        """Return what the function of `map_items` gives its messages to, so that they reach `notify` in this process.

        It can be pickled wherever the function has to be.
        """
        return notify if self.is_here else relay


HERE = Schedule()
"""One after the other, in this process."""


def map_items(
    function: Callable[[T], R], items: Sequence[T], schedule: Schedule = HERE, *, notify: Notify = log_message
) -> Iterator[tuple[int, R | HalebrainError]]:
    """Yield `(index, function(item))` as they finish; an error is yielded in place of a result, never raised.

    Unexpected exceptions become an `UnexpectedError`, with the traceback. An item whose worker dies (out of memory, a
    crash in a library) is tried once more, and then becomes a `WorkerError`; the others go on.

    Args:
        function: Picklable, unless everything is done in this process.
        items: What it is called with.
        schedule: Where.
        notify: Receives what the function relays from workers.

    Raises:
        UnavailableError: The cluster cannot be used, or is lost.
    """
    for place, outcome in _outcomes(function, items, schedule):
        for message in outcome.messages:
            notify(message)
        yield place, outcome.result


def in_order(results: Iterable[tuple[int, R]]) -> Iterator[tuple[int, R]]:
    """Yield what `map_items` does in the order of the items: sums over them are the same to the last bit."""
    waiting, following = dict[int, R](), 0
    for place, result in results:
        waiting[place] = result
        while following in waiting:
            yield following, waiting.pop(following)
            following += 1


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


@contextmanager
def beside(function: Callable[[], R], *, threads: int) -> Iterator[Callable[[], R]]:
    """Compute `function()` in another thread while the block runs; the block gets a call that waits for it.

    With one thread it is computed where the block asks for it, so the result is the same. An error is raised there.
    """
    if threads <= 1:
        yield function
        return
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(function).result


def _outcomes(function: Callable[[T], R], items: Sequence[T], schedule: Schedule) -> Iterator[tuple[int, Outcome[R]]]:
    if schedule.is_here or not items:
        return ((place, attempt(function, item)) for place, item in enumerate(items))
    workers, threads = schedule.workers, schedule.threads
    if schedule.executor == "dask":
        return run_on_dask(
            function,
            items,
            address=schedule.dask_address,
            scheduler_file=schedule.dask_scheduler_file,
            workers=workers,
            threads=threads,
        )
    if schedule.executor == "submitit":
        folder = schedule.output / f".slurm-{uuid.uuid4().hex[:8]}"
        options = schedule.slurm
        return run_on_slurm(function, items, folder=folder, workers=max(workers, 1), threads=threads, options=options)
    shared = max(1, (os.cpu_count() or 1) // workers)
    return run_in_processes(function, items, workers=workers, threads=threads or shared)
