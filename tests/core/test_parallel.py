import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from halebrain.core import parallel
from halebrain.core.errors import DataError, UnexpectedError, WorkerError
from halebrain.core.parallel import HERE, Schedule, beside, in_order, map_items, map_threads


def square(n):
    if n == 3:
        raise DataError("a number must not be three", where="three.nii.gz")
    return n * n


def square_or_die(n):
    if n == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return n * n


def note_start(folder, n):
    for start in (1, 2, 3, 4):
        try:
            (folder / f"{n}-{start}").touch(exist_ok=False)
        except FileExistsError:
            continue
        return start


def die_at_first(folder, n):
    if note_start(folder, n) == 1 and n == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return n * n


def speak(notify, n):
    notify(f"{n} speaks")


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
    found = dict(map_items(fail_awkwardly, range(4), Schedule(workers=workers)))
    error = found.pop(1)
    assert found == {0: 0, 2: 2, 3: 3}
    assert isinstance(error, UnexpectedError)
    assert str(error) == "unexpected AwkwardError: salt and pepper"
    assert 'raise AwkwardError("salt", "pepper")' in error.traceback


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_results_and_errors_come_with_their_place(workers):
    found = dict(map_items(square, range(5), Schedule(workers=workers)))
    assert [found[n] for n in (0, 1, 2, 4)] == [0, 1, 4, 16]
    assert isinstance(found[3], DataError)
    assert str(found[3]) == "a number must not be three in 'three.nii.gz'"


@pytest.mark.slow
def test_a_worker_that_dies_names_its_item_and_stops_nothing():
    found = dict(map_items(square_or_die, range(7), Schedule(workers=2)))
    assert isinstance(found.pop(2), WorkerError)
    assert found == {n: n * n for n in (0, 1, 3, 4, 5, 6)}


@pytest.mark.slow
def test_a_worker_that_dies_once_costs_its_item_one_retry(tmp_path):
    found = dict(map_items(partial(die_at_first, tmp_path), range(4), Schedule(workers=2)))
    assert found == {0: 0, 1: 1, 2: 4, 3: 9}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-1", "1-1", "2-1", "2-2", "3-1"]


def test_workers_inherit_cores_that_are_shared_out(monkeypatch):
    told = []
    monkeypatch.setattr(parallel, "run_in_processes", lambda *_, **how: told.append(how) or iter(()))
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    for workers, threads in ((3, None), (16, None), (2, 3)):
        list(map_items(square, [1], Schedule(workers=workers, threads=threads)))
    assert [how["threads"] for how in told] == [2, 1, 3]


@pytest.mark.slow
def test_messages_of_workers_reach_the_caller():
    told = []
    schedule = Schedule(workers=1)
    assert dict(map_items(partial(speak, schedule.relayed(told.append)), range(2), schedule, notify=told.append))
    assert told == ["0 speaks", "1 speaks"]
    assert dict(map_items(partial(speak, HERE.relayed(told.append)), range(2)))
    assert told[2:] == ["0 speaks", "1 speaks"]


def test_results_can_be_had_in_the_order_of_the_items():
    assert list(in_order([(2, "c"), (0, "a"), (1, "b"), (3, "d")])) == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]


@pytest.mark.slow
def test_what_has_not_begun_never_begins_once_the_caller_stops(tmp_path):
    results = map_items(partial(note_start, tmp_path), range(20), Schedule(workers=1))
    next(results)
    results.close()
    assert len(list(tmp_path.iterdir())) <= 2


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
        "from pathlib import Path\nfrom test_parallel import Schedule, map_items, sleep_and_tell\n"
        f"if __name__ == '__main__': list(map_items(sleep_and_tell, [Path({str(told)!r})], Schedule(workers=1)))\n"
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


@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_computed_beside_a_block_comes_when_it_is_asked_for(threads):
    ran_in = []

    def work():
        ran_in.append(threading.current_thread())
        return 7

    with beside(work, threads=threads) as worked:
        assert worked() == 7
    assert (ran_in[0] is threading.current_thread()) == (threads == 1)
    with pytest.raises(ValueError, match="wrong"), beside(lambda: int("wrong"), threads=threads) as worked:
        worked()
