"""Workers of a cluster: a real Dask cluster of two processes, and a stand-in for SLURM on this machine."""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from slurm_stand_in import install_slurm

from halebrain.core import clusters
from halebrain.core.errors import (
    DataError,
    HalebrainError,
    MissingInputError,
    UnavailableError,
    UsageError,
    WorkerError,
)
from halebrain.core.parallel import Schedule, map_items
from halebrain.core.worker import RemoteCall, relay

pytestmark = pytest.mark.slow


def note_start(folder: Path, n: int) -> int:
    """Return how often an item has begun, and note it in a file."""
    start = 1
    while (folder / f"{n}-{start}").exists():
        start += 1
    (folder / f"{n}-{start}").touch()
    return start


def work(folder: Path, n: int) -> tuple[int, str, str | None]:
    """Kill the worker at the first start of item 1 and at every start of item 2; item 3 cannot be processed."""
    start = note_start(folder, n)
    if n == 2 or (n == 1 and start == 1):
        time.sleep(0.2)  # the scheduler learns of the start
        os.kill(os.getpid(), signal.SIGKILL)
    if n == 3:
        raise DataError("a number must not be three")
    relay(f"{n} speaks")
    return n * n, Path.cwd().name, os.environ.get("HALEBRAIN_HOME")


def check(found: dict[int, object], told: list[str], starts: Path) -> None:
    """Assert what every cluster gives for `work` on five items."""
    error, lost = found.pop(3), found.pop(2)
    assert found == {n: (n * n, "run", "mine") for n in (0, 1, 4)}
    assert isinstance(error, DataError)
    assert isinstance(lost, WorkerError)
    assert "killed twice" in str(lost)
    assert sorted(told) == ["0 speaks", "1 speaks", "4 speaks"]
    begun = {path.name for path in starts.iterdir()}
    assert {name for name in begun if name.startswith("2-")} == {"2-1", "2-2"}
    # Results of others may get lost with a worker, and are made again.
    assert begun >= {"0-1", "1-1", "1-2", "3-1", "4-1"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A folder of a run that workers do not start in, and one for the starts of its items."""
    monkeypatch.setenv("HALEBRAIN_HOME", "mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "starts").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    # Workers load this file by its name.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    return tmp_path


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("HALEBRAIN_HOME", "that of the workers")
    how = {"threads_per_worker": 1, "dashboard_address": None, "local_directory": str(tmp_path / "dask")}
    with distributed.LocalCluster(2, **how, protocol="tcp://", host="127.0.0.1") as local:
        yield local


def test_dask_gives_the_item_of_a_dead_worker_to_another_one_once(cluster, run):
    told: list[str] = []
    schedule = Schedule(executor="dask", dask_address=cluster.scheduler_address)
    found = dict(map_items(partial(work, run / "starts"), range(5), schedule, notify=told.append))
    check(found, told, run / "starts")


def test_slurm_jobs_that_die_are_tried_once_more_item_by_item(run, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 0.5)  # a file system of many nodes is slower
    state = install_slurm(run / "bin")
    monkeypatch.setenv("PATH", f"{run / 'bin'}{os.pathsep}{os.environ['PATH']}")
    told: list[str] = []
    options = ("partition=long", "mem=2G")
    schedule = Schedule(workers=1, threads=2, executor="submitit", slurm=options, output=run)
    found = dict(map_items(partial(work, run / "starts"), range(5), schedule, notify=told.append))
    lost = found[2]
    assert isinstance(lost, HalebrainError)
    folder = next(run.glob(".slurm-*"))
    assert str(folder) in str(lost)
    # Three jobs, of two items and one: item 0, done in the job that died with item 1, is done again.
    assert (run / "starts" / "0-2").exists()
    check(found, told, run / "starts")
    first = (state / "100.sh").read_text()
    for line in ("--partition=long", "--mem=2G", "--cpus-per-task=2", "--array=0-2%1", "--time=04:00:00"):
        assert f"#SBATCH {line}" in first


def test_files_of_slurm_jobs_are_removed_where_none_died(run, monkeypatch):
    pytest.importorskip("submitit")
    install_slurm(run / "bin")
    monkeypatch.setenv("PATH", f"{run / 'bin'}{os.pathsep}{os.environ['PATH']}")
    schedule = Schedule(workers=1, executor="submitit", output=run)
    assert [place for place, _ in map_items(partial(work, run / "starts"), [0], schedule)] == [0]
    assert not list(run.glob(".slurm-*"))


def test_what_cannot_be_reached_is_named(tmp_path, monkeypatch):
    pytest.importorskip("distributed")

    def run(**how: object) -> None:
        list(map_items(abs, [1], Schedule(**how)))

    with pytest.raises(MissingInputError, match=r"scheduler\.json"):
        run(executor="dask", dask_scheduler_file=tmp_path / "scheduler.json")
    with pytest.raises(UnavailableError, match="the Dask scheduler must answer"):
        run(executor="dask", dask_address="nonsense://1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="needs SLURM"):
        run(executor="submitit", workers=1, output=tmp_path)
    with pytest.raises(UsageError, match="key=value"):
        run(executor="submitit", workers=1, output=tmp_path, slurm=("partition",))
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UnavailableError, match=r"halebrain\[slurm\]"):
        run(executor="submitit", workers=1, output=tmp_path)
    with pytest.raises(UnavailableError, match=r"halebrain\[dask\]"):
        run(executor="dask", dask_address="tcp://127.0.0.1:1")


def test_a_cluster_without_workers_or_of_another_version_is_refused(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(clusters, "_WITHOUT_WORKERS_S", 0.1)
    how = {"processes": False, "threads_per_worker": 1, "dashboard_address": None, "protocol": "tcp://"}
    with distributed.LocalCluster(n_workers=0, **how, host="127.0.0.1", local_directory=str(tmp_path)) as cluster:
        schedule = Schedule(executor="dask", dask_address=cluster.scheduler_address)
        with pytest.raises(UnavailableError, match="must have workers"):
            list(map_items(abs, [1], schedule))
        cluster.scale(1)
        cluster.wait_for_workers(1)
        monkeypatch.setattr(clusters, "_version", lambda: "0.0.1")
        with pytest.raises(UnavailableError, match=r"same version of HaleBrain, got 0\.0\.1, while this one is"):
            list(map_items(abs, [1], schedule))


def test_folder_and_variables_of_a_worker_are_its_own_again(run, monkeypatch):
    monkeypatch.setenv("HALEBRAIN_HOME", "that of the run")
    call = RemoteCall(partial(work, run / "starts"), threads=1)
    monkeypatch.chdir(run)
    monkeypatch.setenv("HALEBRAIN_HOME", "that of the worker")
    monkeypatch.setenv("HALEBRAIN_SYNTHSTRIP_WEIGHTS", "those of the worker")
    assert call(4).result == (16, "run", "that of the run")
    assert Path.cwd() == run
    assert os.environ["HALEBRAIN_HOME"] == "that of the worker"
    assert os.environ["HALEBRAIN_SYNTHSTRIP_WEIGHTS"] == "those of the worker"
