import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from halebrain.core.errors import DataError, UnexpectedError, WorkerError
from halebrain.core.parallel import map_items, map_threads


def square(n):
    if n == 3:
        raise DataError("a number must not be three", where="three.nii.gz")
    return n * n


def square_or_die(n):
    if n == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return n * n


class AwkwardError(Exception):
    """Cannot be sent to another process: it is made of two arguments, and pickle gives it one."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def fail_awkwardly(n):
    if n == 1:
        raise AwkwardError("salt", "pepper")
    return n


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_what_nobody_foresaw_fails_alone_and_keeps_its_traceback(workers):
    found = dict(map_items(fail_awkwardly, range(4), workers=workers))
    error = found.pop(1)
    assert found == {0: 0, 2: 2, 3: 3}
    assert isinstance(error, UnexpectedError)
    assert str(error) == "unexpected AwkwardError: salt and pepper"
    assert 'raise AwkwardError("salt", "pepper")' in error.traceback


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_results_and_errors_come_with_their_place(workers):
    found = dict(map_items(square, range(5), workers=workers))
    assert [found[n] for n in (0, 1, 2, 4)] == [0, 1, 4, 16]
    assert isinstance(found[3], DataError)
    assert str(found[3]) == "a number must not be three in 'three.nii.gz'"


@pytest.mark.slow
def test_a_worker_that_dies_names_its_item_and_stops_nothing():
    found = dict(map_items(square_or_die, range(7), workers=2))
    assert isinstance(found.pop(2), WorkerError)
    assert found == {n: n * n for n in (0, 1, 3, 4, 5, 6)}


class Counting(Executor):
    """Runs in threads and remembers how many items were ever out at once."""

    def __init__(self) -> None:
        self.pool, self.out, self.most, self.lock = ThreadPoolExecutor(2), 0, 0, threading.Lock()

    def submit(self, function, /, *arguments, **named) -> Future:
        with self.lock:
            self.out += 1
            self.most = max(self.most, self.out)

        def run():
            time.sleep(0.002)
            return function(*arguments, **named)

        future = self.pool.submit(run)
        future.add_done_callback(self._back)
        return future

    def _back(self, _):
        with self.lock:
            self.out -= 1


def test_any_executor_serves_and_few_items_are_out_at_once():
    executor = Counting()
    found = dict(map_items(square, range(40), workers=2, executor=executor))
    assert len(found) == 40
    assert found[7] == 49
    assert executor.most <= 4


def test_an_executor_that_breaks_gives_an_error_for_each_item_left():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        found = dict(map_items(square_or_die, range(6), workers=1, executor=executor))
    assert sorted(found) == list(range(6))
    assert found[0] == 0
    assert all(isinstance(found[n], WorkerError) for n in range(2, 6))


def test_what_has_not_begun_never_begins_once_the_caller_stops():
    executor = ThreadPoolExecutor(1)
    begun, gate = [], threading.Event()

    def wait_at_the_gate(n):
        begun.append(n)
        if n:
            gate.wait(10)
        return n

    results = map_items(wait_at_the_gate, range(20), workers=4, executor=executor)
    assert next(results) == (0, 0)
    results.close()
    gate.set()
    executor.shutdown()
    assert len(begun) <= 2


def sleep_and_tell(folder):
    (folder / str(os.getpid())).touch()
    time.sleep(60)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(tmp_path):
    source, told = Path(__file__).resolve(), tmp_path / "pids"
    told.mkdir()
    script = tmp_path / "parent.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(source.parent)!r})\n"
        "from pathlib import Path\nfrom test_parallel import map_items, sleep_and_tell\n"
        f"if __name__ == '__main__': list(map_items(sleep_and_tell, [Path({str(told)!r})], workers=1))\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)])
    while not list(told.iterdir()):
        assert parent.poll() is None
        time.sleep(0.05)
    worker = int(next(told.iterdir()).name)
    parent.kill()
    parent.wait()
    # Reaped by init, or a zombie where there is none; either way it works no more.
    for _ in range(100):
        status = Path(f"/proc/{worker}/status")
        if not status.exists() or "zombie" in status.read_text():
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("a worker outlived its parent")


def test_a_dask_cluster_serves():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        found = dict(map_items(square, range(4), workers=1, executor=client.get_executor()))
    assert [found[n] for n in range(3)] == [0, 1, 4]
    assert isinstance(found[3], DataError)


def test_threads_give_results_in_order_with_one_thread_of_torch_each():
    before = torch.get_num_threads()

    def work(n):
        time.sleep(0.01 * (4 - n))
        return n, torch.get_num_threads()

    assert map_threads(work, range(4), threads=4) == [(n, 1) for n in range(4)]
    assert map_threads(work, range(2), threads=1) == [(0, 1), (1, 1)]
    assert map_threads(work, [3], threads=4) == [(3, before)]
    assert torch.get_num_threads() == before


def test_the_first_error_in_order_is_raised_and_the_threads_of_torch_come_back():
    before = torch.get_num_threads()

    def fail(n):
        raise ValueError(str(n))

    with pytest.raises(ValueError, match="0"):
        map_threads(fail, range(3), threads=2)
    assert torch.get_num_threads() == before
