"""What documents say of clusters does its work on a small virtual cohort: tasks of an array, and a Dask scheduler."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from halebrain.io.manifest import Manifest
from halebrain.models.bundle import load_bundle
from halebrain.models.store import export_model

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[1] / "docs" / "how-to" / "cluster.md").read_text(encoding="utf-8")
SCRIPTS = re.findall(r"```bash\n(#!/bin/bash\n#SBATCH .*?)```", PAGE, flags=re.DOTALL)
DASK = re.findall(r"```py\n(.*?)```", PAGE, flags=re.DOTALL)
SMALLER = {
    "--split 0.7,0.1,0.2": "--split 0.5,0.5,0",
    "-m mine": "-m mine --threshold 0.1",
    "prepare -i /data/raw -o /data/prepared -c paper": "prepare -i /data/raw -o /data/prepared -c tiny",
    "reconstructor -c paper": "reconstructor -c tiny --set loop.steps=2 --set loop.validate_every=2",
}
"""What makes a script one of seconds; the model of the test has no thresholds."""
COHORT = ("--subjects", 2, "--patients", 0, "--modality", "FLAIR", "--spacing-mm", 3, "--no-progress")


@pytest.fixture
def submit(tmp_path: Path, programs: Path) -> Callable[[str, int], None]:
    """Run the script of a name as a task of its array, with `/data` in a folder of the test."""

    def run(name: str, task: int) -> None:
        (script,) = [text for text in SCRIPTS if f"--job-name={name}\n" in text]
        for large, small in SMALLER.items():
            script = script.replace(large, small)
        script = script.replace("/data/", f"{tmp_path}/data/")
        environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
        environment["SLURM_ARRAY_TASK_ID"] = str(task)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]

    return run


def test_scans_are_prepared_by_tasks_and_a_model_learns_from_them(
    command: Callable[..., Any], submit: Callable[[str, int], None], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    code, said = command("cohort", "-o", data / "raw", *COHORT)
    assert code == 0, said.err
    people = [f"sub-{subject}\tcontrol\n" for subject in Manifest.read(data / "raw" / "manifest.tsv").subjects()]
    (data / "raw" / "participants.tsv").write_text("".join(["participant_id\tgroup\n", *people]))
    submit("prepare", 0)
    assert not (data / "prepared" / "manifest.tsv").exists(), "the other scan is another task's"
    submit("prepare", 1)
    manifest = Manifest.read(data / "prepared" / "manifest.tsv")
    assert sorted(str(record.split) for record in manifest) == ["train", "val"]
    submit("prepare", 31)  # a task without a scan is none that fails
    submit("stage1", 0)
    assert load_bundle(data / "runs" / "stage1" / "model").training["stage1"]["step"] == 2


def test_a_task_looks_at_the_participant_of_its_line(
    small_model: Path, small_cohort: Callable[..., Path], submit: Callable[[str, int], None], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    made = small_cohort([(name, "FLAIR", "test", "healthy") for name in ("01", "02")]).parent
    for name in ("sub-01", "sub-02"):
        (data / "study" / name / "anat").mkdir(parents=True)
        shutil.copy(made / f"{name}_FLAIR.nii.gz", data / "study" / name / "anat")
    (data / "study" / "dataset_description.json").write_text(json.dumps({"Name": "study", "BIDSVersion": "1.10.0"}))
    (data / "subjects.txt").write_text("sub-01\nsub-02\n")
    export_model(small_model, data / "halebrain" / "models" / "mine.zip")
    submit("detect", 2)
    found = list((data / "derivatives" / "halebrain").rglob("*_provenance.json"))
    assert [json.loads(path.read_text())["exam"] for path in found] == ["sub-02"]


def test_scans_are_prepared_by_a_dask_scheduler_as_written(command: Callable[..., Any], tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    code, said = command("cohort", "-o", tmp_path / "raw", *COHORT)
    assert code == 0, said.err
    Manifest.read(tmp_path / "raw" / "manifest.tsv").write(tmp_path / "raw.tsv")
    (block,) = DASK
    # The worker is a thread of this process, in another folder than that of the block; the block asks it by TCP.
    local: dict[str, Any] = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with distributed.LocalCluster(**local, protocol="tcp://", host="127.0.0.1") as cluster:
        environment = os.environ | {"DASK_SCHEDULER_ADDRESS": cluster.scheduler_address}
        done = subprocess.run(
            [sys.executable, "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("kept=False") == 2, done.stdout
    code, said = command("prepare", "-i", tmp_path / "raw.tsv", "-o", tmp_path / "dataset", "--no-progress")
    assert code == 0, said.err
    assert "2 of 2 scans prepared, 2 of them before" in said.err
