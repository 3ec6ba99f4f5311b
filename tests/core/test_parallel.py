import os
import signal
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest

from halebrain.core.errors import DataError, WorkerError
from halebrain.core.parallel import map_items


def square(n):
    if n == 3:
        raise DataError("a number must not be three", where="three.nii.gz")
    return n * n


def square_or_die(n):
    if n == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return n * n


@pytest.mark.parametrize("workers", [0, 2])
def test_results_and_errors_come_with_their_place(workers):
    found = dict(map_items(square, range(5), workers=workers))
    assert [found[n] for n in (0, 1, 2, 4)] == [0, 1, 4, 16]
    assert isinstance(found[3], DataError)
    assert str(found[3]) == "a number must not be three in 'three.nii.gz'"


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


def test_a_dask_cluster_serves():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        found = dict(map_items(square, range(4), workers=1, executor=client.get_executor()))
    assert [found[n] for n in range(3)] == [0, 1, 4]
    assert isinstance(found[3], DataError)
