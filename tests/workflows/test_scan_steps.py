"""The bar over a detection moves within a scan: step by step, to the end of each scan and no further."""

import re

import pytest

from halebrain.core import progress
from halebrain.core.progress import ProgressBar
from halebrain.workflows.scan_steps import NETWORKS, ScanSteps

SECONDS = {"reading": 1.0, "brain": 3.0, NETWORKS: 4.0, "page": 2.0}


@pytest.fixture
def talkative(monkeypatch):
    """Every step is a line."""
    monkeypatch.setattr(progress, "SETTINGS", progress.ProgressSettings(plain_every_s=-1.0))


def test_each_step_has_its_share_of_the_bar():
    bar = ProgressBar("Detecting", 2, completed=1)
    steps, reached = ScanSteps(bar, SECONDS, passes=2), []
    for step in SECONDS:
        steps.begin(step)
        reached.append(bar.completed)
        if step == NETWORKS:
            for _ in range(2):
                steps.one_pass()
                reached.append(bar.completed)
    assert reached == pytest.approx([1.0, 1.1, 1.4, 1.6, 1.8, 1.8])


def test_who_does_not_wait_is_told_nothing(talkative, capsys):
    for bar, said in ((None, 0), (ProgressBar("Detecting", 1), 2)):
        steps = ScanSteps(bar, SECONDS)
        steps.begin("brain")
        steps.one_pass()
        found = capsys.readouterr()
        assert found.out == ""
        assert found.err.count("Detecting") >= said, "a bar that tells its steps, to compare with"
        assert bool(found.err) == bool(said)


@pytest.mark.slow
@pytest.mark.parametrize("many", [False, True])
def test_a_detection_tells_its_steps_and_the_time_left(command, small_model, small_cohort, talkative, tmp_path, many):
    rows = [("p", "FLAIR", "test", "ms"), ("q", "FLAIR", "test", "ms")][: 2 if many else 1]
    small_cohort(rows)
    folder = tmp_path / "cohort"
    for mask in folder.glob("*_mask.nii.gz"):
        mask.unlink()
    (folder / "manifest.tsv").unlink()
    given = folder if many else folder / "sub-p_FLAIR.nii.gz"
    how = ("-m", small_model, "--threshold", "0.05", "--draws", "2")
    code, said = command("detect", "-i", given, "-o", tmp_path / "out", *how)
    assert code == 0, said.err
    lines = [line for line in said.err.splitlines() if line.startswith("Detecting: ")]
    first = [line for line in lines if "sub-q" not in line] if many else lines
    steps = [line.rpartition("left ")[2].rpartition(": ")[2] for line in first if " left " in line]
    for step in ("brain", "registration", "recognition", NETWORKS, "page"):
        assert step in steps, step
    assert steps.count(NETWORKS) == 3  # it begins, and each draw
    assert any(re.fullmatch(r"Detecting: 0\.\d/\d in \d+ s, \d+ s left .*networks", line) for line in lines)
    done = [float(line.split()[1].partition("/")[0]) for line in lines]
    assert done == sorted(done)
    assert done[-1] == len(rows)
    assert ("sub-q_FLAIR: networks" in said.err) is many
