"""The same results to the bit, and the same list of failures, wherever scans are processed."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from slurm_stand_in import install_slurm

from halebrain.adaptation.scans import prepare_scans
from halebrain.core.errors import DataError
from halebrain.core.failures import Failures
from halebrain.core.parallel import HERE, Schedule
from halebrain.inference.predictor import Predictor
from halebrain.inference.scans import find_scans
from halebrain.io.manifest import Manifest
from halebrain.preprocessing.pipeline import PreprocessingConfig
from halebrain.workflows.detect import detect_scan
from halebrain.workflows.settings import DetectSettings
from halebrain.workflows.worker_model import WorkerModel, network_process, worker_model

pytestmark = pytest.mark.slow

ROWS = [(name, "FLAIR", "test", pathology) for name, pathology in (("01", "ms"), ("02", "healthy"), ("03", "ms"))]
FAILED = "sub-09_FLAIR"
OPTIONS = ("--threshold", "0.1", "--threads", 1, "--no-progress", "--json")
_OF_A_RUN = ("seconds",)


def results(output: Path) -> dict[str, Any]:
    """Return the content of every file of a run but its pages, which show how long it took."""
    found: dict[str, Any] = {}
    for path in sorted(output.rglob("*")):
        name = path.relative_to(output).as_posix()
        if path.suffix == ".json":
            stated = json.loads(path.read_text())
            found[name] = {key: value for key, value in stated.items() if key not in _OF_A_RUN}
        elif path.is_file() and path.suffix != ".html":
            found[name] = path.read_bytes()
    return found


@pytest.fixture
def scans(small_cohort: Callable[..., Path], tmp_path: Path) -> Path:
    """A list of three scans and one that is no scan."""
    folder = small_cohort(ROWS).parent
    (folder / f"{FAILED}.nii.gz").write_bytes(b"none")
    path = tmp_path / "scans.txt"
    names = [f"sub-{row[0]}_FLAIR" for row in ROWS] + [FAILED]
    path.write_text("".join(f"{folder / name}.nii.gz\n" for name in names))
    return path


@pytest.fixture
def detect(command: Callable[..., Any], small_model: Path, scans: Path, tmp_path: Path) -> Callable[..., Path]:
    """Process the scans into a folder of a name; the list of failures is checked."""

    def run(name: str, *where: object) -> Path:
        output = tmp_path / name
        code, said = command("detect", "-i", scans, "-o", output, "-m", small_model, *OPTIONS, *where)
        assert code == 3, said.err
        found = json.loads(said.out)
        assert [scan["scan"] for scan in found["scans"]] == [f"sub-{row[0]}_FLAIR" for row in ROWS]
        assert [failed["scan"] for failed in found["failed"]] == [FAILED]
        assert f"{FAILED}: " in said.err
        return output

    return run


def test_processes_slurm_dask_and_parts_give_what_one_process_does(
    detect: Callable[..., Path],
    command: Callable[..., Any],
    small_model: Path,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    distributed = pytest.importorskip("distributed")
    pytest.importorskip("submitit")
    expected = results(detect("alone"))
    assert len(expected) > 3 * 15
    assert results(detect("processes", "--workers", 2)) == expected

    parts = tmp_path / "parts"
    for part, names in ((0, {"sub-01_FLAIR", "sub-03_FLAIR"}), (1, {"sub-02_FLAIR"})):
        where = ("-o", parts, "--part-id", part, "--num-parts", 2)
        code, said = command("detect", "-i", scans, "-m", small_model, *OPTIONS, *where)
        assert code == (3 if part else 0), said.err
        assert {scan["scan"] for scan in json.loads(said.out)["scans"]} == names
    assert results(parts) == expected
    assert "3 scans" in (parts / "index.html").read_text()

    how: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": None, "local_directory": str(tmp_path / "d")}
    with distributed.LocalCluster(2, **how, protocol="tcp://", host="127.0.0.1") as cluster:
        killed: list[str] = []
        killer = threading.Thread(target=kill_one_at_work, args=(cluster, killed))
        killer.start()
        found = detect("dask", "--executor", "dask", "--dask-address", cluster.scheduler_address)
        killer.join(1)
    assert killed
    assert results(found) == expected

    install_slurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert results(detect("slurm", "--executor", "submitit", "--workers", 1)) == expected


def kill_one_at_work(cluster: Any, killed: list[str]) -> None:
    """Kill the first of the workers of a Dask cluster that processes a scan."""
    while not killed:
        time.sleep(0.05)
        for nanny in cluster.workers.values():
            state = cluster.scheduler.workers.get(nanny.worker_address)
            if state is not None and state.processing:
                time.sleep(0.5)
                os.kill(nanny.pid, signal.SIGKILL)
                killed.append(nanny.worker_address)
                return


def test_networks_in_another_process_give_the_same(
    scans: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = DetectSettings(model=small_model, threshold="0.1", device="cpu")
    scan = find_scans(scans)[0]
    with worker_model(settings, Schedule()) as here:
        detect_scan(here.detector(), scan, tmp_path / "here")
    with network_process(settings) as networks:
        remote = WorkerModel(settings, here.sha256, networks).detector()
        monkeypatch.setattr(Predictor, "predict_working", None)  # in this process
        detect_scan(remote, scan, tmp_path / "there")
    assert results(tmp_path / "there") == results(tmp_path / "here")


def test_a_worker_that_finds_another_model_stops(small_model: Path) -> None:
    with pytest.raises(DataError, match="every worker must find the same model"):
        WorkerModel(DetectSettings(model=small_model, threshold="0.1"), "0" * 64).detector()


def test_evaluations_and_preparations_by_workers_are_the_same(
    command: Callable[..., Any], small_model: Path, small_cohort: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = small_cohort([(name, "FLAIR", "test", pathology) for name, _, _, pathology in ROWS])
    common = ("--manifest", manifest, "--threshold", "0.1", "--threads", 1, "--no-progress")
    for name, where in (("one", ()), ("two", ("--workers", 2))):
        code, said = command("evaluate", small_model, *common, "--reconstruction", "-o", tmp_path / name, *where)
        assert code == 0, said.err
    assert results(tmp_path / "two") == results(tmp_path / "one")
    for part, others in ((1, ("--workers", 1)), (0, ())):
        where = ("-o", tmp_path / "parts", "--part-id", part, "--num-parts", 2, *others)
        code, said = command("evaluate", small_model, *common, "--reconstruction", *where)
        assert code == 0, said.err
    assert results(tmp_path / "parts") == results(tmp_path / "one")
    assert (tmp_path / "parts" / "index.html").read_bytes() == (tmp_path / "one" / "index.html").read_bytes()
    config = PreprocessingConfig(shape=(32, 32, 24), spacing_mm=6.0, registration="none", bias_correction="none")
    rows, made = Manifest.read(manifest), {}
    for name, schedule in (("here", HERE), ("there", Schedule(workers=1))):
        (prepared,) = prepare_scans([rows], config, tmp_path / name, Failures(None), schedule)
        made[name] = [record.image.read_bytes() for record in prepared]
    assert made["here"] == made["there"]


def test_parts_of_a_cohort_make_the_whole(command: Callable[..., Any], tmp_path: Path) -> None:
    people = ("--subjects", 2, "--patients", 0, "--modality", "FLAIR", "--spacing-mm", 4, "--no-progress", "--json")
    assert command("cohort", "-o", tmp_path / "whole", *people)[0] == 0
    lefts = []
    for part in (0, 1):
        code, said = command("cohort", "-o", tmp_path / "parts", *people, "--part-id", part, "--num-parts", 2)
        assert code == 0, said.err
        lefts.append(json.loads(said.out)["left"])
        assert (tmp_path / "parts" / "manifest.tsv").exists() == bool(part)
    assert lefts == [1, 0]
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
