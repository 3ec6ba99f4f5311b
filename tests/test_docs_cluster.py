"""What documents say of clusters does its work on small data: tasks of an array, SLURM jobs, and a Dask cluster."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from slurm_stand_in import install_slurm

from halebrain.io.manifest import Manifest
from halebrain.models.bundle import load_bundle
from halebrain.models.store import export_model

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[1] / "docs" / "how-to" / "cluster.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
SMALLER = {
    "--split 0.7,0.1,0.2": "--split 0.5,0.5,0",
    "-m mine": "-m mine --threshold 0.1",
    "evaluate mine": "evaluate mine --threshold 0.1",
    "adapt -m mine --threshold 0.1": "adapt -m mine",
    "-i /data/raw -o /data/prepared -c paper": "-i /data/raw -o /data/prepared -c tiny",
    "reconstructor -c paper": "reconstructor -c tiny --set loop.steps=2 --set loop.validate_every=2",
}
"""What makes a script one of seconds; the model of the test has no thresholds."""
COHORT = ("--subjects", 2, "--patients", 0, "--modality", "FLAIR", "--spacing-mm", 3, "--no-progress")


@pytest.fixture
def start(tmp_path: Path, programs: Path) -> Callable[..., subprocess.Popen[str]]:
    """Begin the block that holds some words, with `/data` in a folder of the test."""

    def run(words: str, *more: Path, **variables: str) -> subprocess.Popen[str]:
        (script,) = [text for text in BLOCKS if words in text]
        for large, small in SMALLER.items():
            script = script.replace(large, small)
        script = script.replace("/data/", f"{tmp_path}/data/")
        places = [*map(str, more), str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
        environment = os.environ | variables | {"PATH": os.pathsep.join(places), "TMPDIR": str(tmp_path)}
        how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(["bash", "-euo", "pipefail", "-c", script], env=environment, process_group=0, **how)

    return run


@pytest.fixture
def submit(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., None]:
    """Run the block that holds some words to its end, as the task of an array if a number is given."""

    def run(words: str, *more: Path, task: int | None = None) -> None:
        variables = {} if task is None else {"SLURM_ARRAY_TASK_ID": str(task)}
        done = start(words, *more, **variables)
        said = done.communicate()[0]
        assert done.returncode == 0, said[-2000:]

    return run


@pytest.fixture
def raw(command: Callable[..., Any], tmp_path: Path) -> Path:
    """A virtual cohort of two healthy people as raw data, with a table of participants."""
    data = tmp_path / "data"
    data.mkdir()
    code, said = command("cohort", "-o", data / "raw", *COHORT)
    assert code == 0, said.err
    people = [f"sub-{subject}\tcontrol\n" for subject in Manifest.read(data / "raw" / "manifest.tsv").subjects()]
    (data / "raw" / "participants.tsv").write_text("".join(["participant_id\tgroup\n", *people]))
    return data


def test_scans_are_prepared_by_tasks_and_a_model_learns_from_them(raw: Path, submit: Callable[..., None]) -> None:
    submit("--job-name=prepare\n", task=0)
    assert not (raw / "prepared" / "manifest.tsv").exists(), "the other scan is another task's"
    submit("--job-name=prepare\n", task=1)
    manifest = Manifest.read(raw / "prepared" / "manifest.tsv")
    assert sorted(str(record.split) for record in manifest) == ["train", "val"]
    submit("--job-name=prepare\n", task=31)  # a task without a scan is none that fails
    submit("--job-name=stage1\n", task=0)
    assert load_bundle(raw / "runs" / "stage1" / "model").training["stage1"]["step"] == 2


@pytest.fixture
def listed(small_model: Path, small_cohort: Callable[..., Path], tmp_path: Path) -> Path:
    """Two scans as a list and as a BIDS data set, and the model that has a name."""
    data = tmp_path / "data"
    made = small_cohort([(name, "FLAIR", "test", "healthy") for name in ("01", "02")]).parent
    for name in ("sub-01", "sub-02"):
        (data / "study" / name / "anat").mkdir(parents=True)
        shutil.copy(made / f"{name}_FLAIR.nii.gz", data / "study" / name / "anat")
    (data / "study" / "dataset_description.json").write_text(json.dumps({"Name": "study", "BIDSVersion": "1.10.0"}))
    (data / "scans.txt").write_text("".join(f"{path}\n" for path in sorted((data / "study").rglob("*.nii.gz"))))
    export_model(small_model, data / "halebrain" / "models" / "mine.zip")
    return data


def found(folder: Path) -> list[str]:
    """Return the names of the scans with results below a folder."""
    return sorted(json.loads(path.read_text())["scan"] for path in folder.rglob("*_provenance.json"))


def test_a_task_looks_at_its_part_of_the_participants(listed: Path, submit: Callable[..., None]) -> None:
    submit("--job-name=detect\n", task=1)
    made = (listed / "derivatives" / "halebrain").rglob("*_provenance.json")
    assert [json.loads(path.read_text())["exam"] for path in made] == ["sub-02"]


def test_tasks_evaluate_their_parts_and_the_last_one_writes_the_tables(
    small_model: Path, small_cohort: Callable[..., Path], submit: Callable[..., None], tmp_path: Path
) -> None:
    made = small_cohort([(name, "FLAIR", "test", "ms") for name in ("01", "02")]).parent
    (tmp_path / "data").mkdir()
    made.rename(tmp_path / "data" / "prepared")
    export_model(small_model, tmp_path / "data" / "halebrain" / "models" / "mine.zip")
    submit("--job-name=evaluate\n", task=1)
    summary = tmp_path / "data" / "evaluation" / "summary.json"
    assert not summary.exists(), "the other scan is another task's"
    submit("--job-name=evaluate\n", task=7)  # a task without a scan is none that fails
    submit("--job-name=evaluate\n", task=0)
    assert len(json.loads(summary.read_text())["provenance"]["versions"]) == 4
    assert not (summary.parent / "scored").exists()


def test_tasks_prepare_their_parts_of_an_adaptation(
    small_model: Path, small_cohort: Callable[..., Path], submit: Callable[..., None], tmp_path: Path
) -> None:
    made = small_cohort([(name, "FLAIR", "train", "ms") for name in ("01", "02")]).parent
    (tmp_path / "data").mkdir()
    made.rename(tmp_path / "data" / "annotated")
    export_model(small_model, tmp_path / "data" / "halebrain" / "models" / "mine.zip")
    for task, count in ((1, 1), (3, 1), (0, 2)):  # a task without a scan is none that fails
        submit("--job-name=few\n", task=task)
        assert len(list((tmp_path / "data" / "adapted" / "work" / "scans").rglob("*_desc-preproc_*.nii.gz"))) == count


def test_scans_are_processed_on_a_dask_cluster(
    raw: Path, listed: Path, start: Callable[..., subprocess.Popen[str]], submit: Callable[..., None]
) -> None:
    pytest.importorskip("distributed")
    running = [start("dask scheduler"), start("dask worker")]
    try:
        while not (listed / "scheduler.json").exists():
            assert running[0].poll() is None, running[0].communicate()
            time.sleep(0.1)
        submit("--executor dask")
    finally:
        for process in reversed(running):
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate()
    assert len(Manifest.read(raw / "prepared" / "manifest.tsv")) == 2
    assert found(listed / "detected") == ["sub-01_FLAIR", "sub-02_FLAIR"]


def test_scans_are_processed_by_slurm_jobs(listed: Path, submit: Callable[..., None], tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    state = install_slurm(tmp_path / "slurm")
    submit("--executor submitit", tmp_path / "slurm")
    assert found(listed / "detected") == ["sub-01_FLAIR", "sub-02_FLAIR"]
    assert "#SBATCH --partition=long" in (state / "100.sh").read_text()
