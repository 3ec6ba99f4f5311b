"""Workers of a cluster: those of a running Dask cluster, and SLURM jobs through submitit; both are optional extras."""

import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import closing
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

import halebrain
from halebrain.core.errors import MissingInputError, UnavailableError, UnexpectedError, UsageError
from halebrain.core.processes import worker_died
from halebrain.core.worker import Outcome, RemoteCall

T = TypeVar("T")
R = TypeVar("R")
_WAITING_PER_WORKER = 2
"""Items handed out at once for each worker of a Dask cluster: enough to keep it busy."""
_TRIES = 2
_BEGUN, _ENDED = "begun", "ended"
_CHECKED_EVERY_S = 5.0
_WITHOUT_WORKERS_S = 60.0
"""How long a Dask cluster may be without any worker."""
_JOBS_PER_WORKER, _MOST_JOBS = 4, 1000
"""SLURM jobs for each worker, so that none waits long for the slowest; and as many as an array has on most clusters."""
_SLURM: Mapping[str, str] = {"job-name": "halebrain", "time": "04:00:00", "mem": "8G"}


def run_on_dask(
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    address: str | None,
    scheduler_file: Path | None,
    workers: int,
    threads: int | None,
) -> Iterator[tuple[int, Outcome[R]]]:
    """Yield the place and the outcome of each item as it is finished by a worker of a Dask cluster.

    Dask gives the item of a worker that dies to another one. An item that began twice without an end is not tried
    again, and its outcome is a `WorkerError`.

    Args:
        function: Can be pickled.
        items: What it is called with.
        address: That of the scheduler.
        scheduler_file: The file that the scheduler wrote instead.
        workers: Items at once; 0 = all workers of the cluster, those that come later too.
        threads: CPU threads of each; `None` = those that a worker was started with.

    Raises:
        UnavailableError: The cluster cannot be reached, has no worker, or has another version of HaleBrain.
    """
    client = _connect(address, scheduler_file)
    with closing(client):
        _check_workers(client)
        yield from _through(client, RemoteCall(function, threads), items, workers)


def _connect(address: str | None, scheduler_file: Path | None) -> Any:
    try:
        import distributed
    except ImportError as error:
        raise _not_installed("dask", "distributed") from error
    if scheduler_file is not None and not scheduler_file.is_file():
        raise MissingInputError(
            "the file of a Dask scheduler must exist", where=scheduler_file, remedy="start the scheduler first"
        )
    connect: Any = distributed.Client
    place = {"address": address} if scheduler_file is None else {"scheduler_file": str(scheduler_file)}
    try:
        return connect(**place, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UnavailableError(
            "the Dask scheduler must answer",
            received=str(error) or "no answer",
            where=scheduler_file or address or "",
            remedy="start it, and check address and port",
        ) from error


def _check_workers(client: Any) -> None:
    try:
        client.wait_for_workers(1, timeout=_WITHOUT_WORKERS_S)
    except TimeoutError as error:
        raise _without_workers() from error
    for worker, version in client.run(_version, on_error="return").items():
        if version != halebrain.__version__:
            raise UnavailableError(
                "the workers of a cluster must have the same version of HaleBrain",
                received=f"{version}, while this one is {halebrain.__version__}",
                where=worker,
                remedy="start the workers in the same environment",
            )


def _version() -> str:
    return halebrain.__version__


def _without_workers() -> UnavailableError:
    return UnavailableError(
        "a Dask cluster must have workers",
        received=f"none for {_WITHOUT_WORKERS_S:.0f} s",
        remedy="start some and run the same command again; it resumes",
    )


def _through(client: Any, call: RemoteCall[T, R], items: Sequence[T], workers: int) -> Iterator[tuple[int, Outcome[R]]]:
    executor: Executor = client.get_executor(pure=False)
    run, places, out = uuid.uuid4().hex, iter(range(len(items))), dict[Future[Outcome[R] | None], int]()
    most, seen = _at_once(client, workers), time.monotonic()
    checked = seen
    try:
        while True:
            while len(out) < max(most, 1) and (place := next(places, None)) is not None:
                out[executor.submit(_at_dask_worker, call, f"halebrain-{run}-{place}", items[place])] = place
            if not out:
                return
            done, _ = wait(out, timeout=_CHECKED_EVERY_S, return_when=FIRST_COMPLETED)
            for future in done:
                yield out.pop(future), _brought_back(future)
            now = time.monotonic()
            if now - checked < _CHECKED_EVERY_S:
                continue
            most, checked = _at_once(client, workers), now
            seen = now if most else seen
            if now - seen > _WITHOUT_WORKERS_S:
                raise _without_workers()
    finally:
        # Where the caller stops (an interrupt, a full disk), what has not begun never begins.
        for future in out:
            future.cancel()


def _at_once(client: Any, workers: int) -> int:
    """Return how many items are handed out at once, 0 where no worker is there: they come and go in a run."""
    try:
        there = len(client.nthreads())
    except (OSError, ValueError) as error:
        raise _lost() from error
    return _WAITING_PER_WORKER * there if workers == 0 else min(workers, _WAITING_PER_WORKER * there)


def _at_dask_worker(call: RemoteCall[T, R], topic: str, item: T) -> Outcome[R] | None:
    """Return what became of an item; `None` where it began twice before, and neither worker lived to its end."""
    from distributed import get_client, get_worker

    worker = get_worker()
    said = [message for _, message in get_client().get_events(topic) or ()]
    # What a worker had finished may get lost with it, and is done again without being to blame.
    if said.count(_BEGUN) - said.count(_ENDED) >= _TRIES:
        return None
    worker.log_event(topic, _BEGUN)
    outcome = call(item, threads=worker.state.nthreads)
    worker.log_event(topic, _ENDED)
    return outcome


def _brought_back(future: "Future[Outcome[R] | None]") -> Outcome[R]:
    from distributed.scheduler import KilledWorker

    died: Outcome[R] = Outcome(worker_died("it may have run out of memory: start workers with more"))
    try:
        return future.result() or died
    except KilledWorker:
        return died
    except CancelledError as error:
        raise _lost() from error
    except Exception as error:  # a result that cannot be brought back
        return Outcome(UnexpectedError.of(error))


def _lost() -> UnavailableError:
    return UnavailableError(
        "a Dask scheduler must stay available until the end",
        received="a lost connection",
        remedy="start it again and run the same command; it resumes",
    )


def run_on_slurm(
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    folder: Path,
    workers: int,
    threads: int | None,
    options: Sequence[str],
    poll_s: float = 2.0,
) -> Iterator[tuple[int, Outcome[R]]]:
    """Yield the place and the outcome of each item when its SLURM job has ended.

    A job takes many items, and loads a model once. The items of a job that dies, each alone in a job, are tried
    once more; then the outcome is a `WorkerError`.

    Args:
        function: Can be pickled.
        items: What it is called with.
        folder: For the files of the jobs, readable from every node; it is removed if no job died.
        workers: Jobs at once, one or more.
        threads: CPU threads of each; `None` = 4.
        options: "key=value" of `sbatch`.
        poll_s: How often the state of jobs is read, s.

    Raises:
        UnavailableError: There is no submitit or no SLURM.
        UsageError: An option is not understood.
    """
    threads = threads or 4
    executor = _slurm_executor(folder, workers, {"cpus-per-task": str(threads)} | _parsed(options))
    call, died = RemoteCall(function, threads), list[int]()
    size = max(ceil(len(items) / (_JOBS_PER_WORKER * workers)), ceil(len(items) / _MOST_JOBS), 1)
    chunks = [range(len(items))[start : start + size] for start in range(0, len(items), size)]
    for chunk, outcomes in _jobs(executor, call, items, chunks, poll_s):
        if outcomes is None:
            died += chunk
        else:
            yield from zip(chunk, outcomes, strict=True)
    for first in range(0, len(died), _MOST_JOBS):
        alone = [[place] for place in died[first : first + _MOST_JOBS]]
        for (place,), outcomes in _jobs(executor, call, items, alone, poll_s):
            remedy = f"it may have run out of memory or time: see {folder}, or use --slurm mem=… or time=…"
            yield place, Outcome(worker_died(remedy)) if outcomes is None else outcomes[0]
    if not died:
        shutil.rmtree(folder, ignore_errors=True)


def _parsed(options: Sequence[str]) -> dict[str, str]:
    found = dict[str, str]()
    for option in options:
        key, equals, value = option.partition("=")
        if not (key and equals and value):
            raise UsageError(
                "--slurm takes key=value", received=repr(option), remedy="for example --slurm partition=long"
            )
        found[key.removeprefix("--").replace("_", "-")] = value
    return found


def _slurm_executor(folder: Path, workers: int, options: Mapping[str, str]) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise _not_installed("slurm", "submitit") from error
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UnavailableError(
            "--executor submitit needs SLURM", received="no sbatch or srun", remedy="run it on a login node"
        )
    executor = submitit.SlurmExecutor(folder=folder.absolute())
    executor.update_parameters(array_parallelism=workers, additional_parameters={**_SLURM, **options})
    return executor


def _jobs(
    executor: Any, call: RemoteCall[T, R], items: Sequence[T], chunks: Sequence[Sequence[int]], poll_s: float
) -> Iterator[tuple[Sequence[int], list[Outcome[R]] | None]]:
    """Yield the places and the outcomes of each job as it ends; `None` where it died."""
    from submitit.core.utils import UncompletedJobError
    from submitit.helpers import as_completed

    with executor.batch():
        jobs = [executor.submit(_one_after_another, call, [items[place] for place in chunk]) for chunk in chunks]
    waiting = dict(zip(jobs, chunks, strict=True))
    try:
        for job in as_completed(jobs, poll_frequency=poll_s):
            chunk = waiting.pop(job)
            try:
                outcomes = job.result()
            except UncompletedJobError:
                outcomes = None
            except Exception as error:  # the job itself failed, not an item
                outcomes = [Outcome(UnexpectedError.of(error)) for _ in chunk]
            yield chunk, outcomes
    finally:
        for job in waiting:
            job.cancel(check=False)


def _one_after_another(call: RemoteCall[T, R], items: Sequence[T]) -> list[Outcome[R]]:
    return [call(item) for item in items]


def _not_installed(extra: str, package: str) -> UnavailableError:
    return UnavailableError(
        f"this executor needs the package {package}", remedy=f"pip install 'halebrain[{extra}]', here and on each node"
    )
