"""Ctrl-C during a training: the exit code, the message, and a checkpoint from which the same command goes on."""

import os
import signal
import subprocess
import sys
import time

import pytest

from halebrain.simulation.config import CohortConfig
from halebrain.simulation.generate import generate_cohort


@pytest.mark.slow
def test_an_interrupted_training_says_so_and_goes_on(tmp_path):
    config = CohortConfig(healthy=4, patients=0, modalities=("FLAIR",), pathologies=("ms",), spacing_mm=4.0, seed=0)
    generate_cohort(tmp_path / "cohort", config)
    command = [sys.executable, "-c", "from halebrain.cli.main import main; main()", "train", "reconstructor"]
    command += ["-c", "tiny", "--manifest", tmp_path / "cohort" / "manifest.tsv", "-o", tmp_path / "run"]
    endless = ["--set", "loop.steps=1000000", "--set", "loop.checkpoint_every=1000000"]
    long = [*map(str, command), "--no-progress", *endless]
    process = subprocess.Popen(long, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "log.csv"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") > 2):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, message = process.communicate(timeout=30)
    assert process.returncode == 130
    assert message.strip() == "halebrain: interrupted; finished work is kept, run the same command again to resume"
    assert (tmp_path / "run" / "checkpoint.pt").exists()
