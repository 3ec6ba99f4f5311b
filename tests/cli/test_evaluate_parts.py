"""Parts of an evaluation: joined to the bit by the last one, resumed, failures listed, and named where missing."""

import json
from contextlib import contextmanager

import nibabel
import numpy as np
import pytest

from halebrain.core.errors import CannotWriteError
from halebrain.core.failures import Failures
from halebrain.core.parallel import HERE
from halebrain.evaluation import folders as folders_module
from halebrain.evaluation import parts as parts_module
from halebrain.evaluation.contribution import Contribution, read_contribution, write_contribution
from halebrain.evaluation.evaluate import ScanScores
from halebrain.evaluation.parts import Part, Scans, ScansLeft, scoring

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
SUBJECTS = ("01", "02", "03", "04", "05")


@pytest.fixture
def compared(tmp_path, rng):
    """Five maps and their references; the last person is healthy."""
    for subject in SUBJECTS:
        truth = np.zeros((14, 14, 12), np.uint8)
        truth[4:9, 5:9, 4:8] = subject != "05"
        save(tmp_path / "truth" / f"sub-{subject}_mask.nii.gz", truth)
        score = (0.4 * truth + 0.6 * rng.random(truth.shape)).astype(np.float32)
        save(tmp_path / "maps" / f"sub-{subject}_map.nii.gz", score)
    return tmp_path


def save(path, data):
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, AFFINE), path)


@pytest.fixture
def evaluate(command, compared, monkeypatch):
    """Evaluate into a folder of a name, the whole or a part; return exit code, document, output and scored scans."""
    scored = []
    before = folders_module._score

    def score(options, method, scan):
        scored.append(scan.scan_id)
        return before(options, method, scan)

    monkeypatch.setattr(folders_module, "_score", score)

    def run(name, part=None, *more, parts=2):
        scored.clear()
        given = ("--predictions", compared / "maps", "--references", compared / "truth", "--threshold", 0.6)
        which = () if part is None else ("--part-id", part, "--num-parts", parts)
        code, said = command("evaluate", *given, "-o", compared / name, "--no-progress", "--json", *which, *more)
        return code, said.err, json.loads(said.out) if said.out else None, [*scored]

    return run


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_parts_give_the_files_of_one_run_to_the_bit(evaluate, compared):
    code, _, whole, _ = evaluate("whole")
    assert code == 0
    code, said, found, scored = evaluate("parts", 1)
    assert (code, scored) == (0, ["sub-02", "sub-04"])
    assert "3 scans are left (3 of part 0 of 2); the last part writes tables and page" in said
    assert {key: found[key] for key in ("scored", "kept", "left", "failed")} == {
        **{"scored": 2, "kept": 0, "left": 3, "failed": []}
    }
    assert not (compared / "parts" / "summary.json").exists()
    code, _, found, scored = evaluate("parts", 0)
    assert (code, scored) == (0, ["sub-01", "sub-03", "sub-05"])
    assert {**found, "output": None, "files": None} == {**whole, "output": None, "files": None}
    assert files(compared / "parts") == files(compared / "whole")
    assert len(files(compared / "whole")) > 6


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_part_that_is_run_again_keeps_what_it_scored_unless_the_files_changed(evaluate, compared, rng):
    evaluate("parts", 0)
    code, said, _, scored = evaluate("parts", 0)
    assert (code, scored) == (0, [])
    assert "3 scans of this part scored, 3 of them before" in said
    save(compared / "maps" / "sub-03_map.nii.gz", rng.random((14, 14, 12)).astype(np.float32))
    assert evaluate("parts", 0)[3] == ["sub-03"]
    assert evaluate("parts", 1)[0] == 0
    assert evaluate("whole")[0] == 0
    assert files(compared / "parts") == files(compared / "whole")


@pytest.mark.usefixtures("undrawn")
def test_the_command_without_parts_scores_the_rest_and_joins(evaluate, compared):
    evaluate("parts", 2, parts=3)
    code, _, _, scored = evaluate("parts")
    assert (code, scored) == (0, ["sub-01", "sub-02", "sub-04", "sub-05"])
    assert evaluate("whole")[0] == 0
    assert files(compared / "parts") == files(compared / "whole")


@pytest.mark.usefixtures("undrawn")
def test_scans_that_fail_are_listed_and_joined_as_failures(evaluate, compared):
    good = (compared / "maps" / "sub-04_map.nii.gz").read_bytes()
    (compared / "maps" / "sub-04_map.nii.gz").write_bytes(b"none")
    code, said, found, _ = evaluate("parts", 3, parts=4)
    assert code == 3, "the only scan of a part fails as one of many"
    assert [one["scan"] for one in found["failed"]] == ["sub-04"]
    assert "sub-04: " in said
    assert [evaluate("parts", part, parts=4)[0] for part in (0, 1)] == [0, 0]
    code, _, joined, _ = evaluate("parts", 2, parts=4)
    assert code == 3
    code, _, whole, _ = evaluate("whole")
    assert code == 3
    assert {**joined, "output": None, "files": None} == {**whole, "output": None, "files": None}
    # The part whose scan failed scores that one alone, and joins again.
    (compared / "maps" / "sub-04_map.nii.gz").write_bytes(good)
    code, _, joined, scored = evaluate("parts", 3, parts=4)
    assert (code, scored, joined["failed"]) == (0, ["sub-04"], [])
    assert evaluate("whole")[0] == 0
    assert files(compared / "parts") == files(compared / "whole")


def test_other_settings_are_another_evaluation(evaluate, compared):
    evaluate("parts", 0)
    code, said, _, _ = evaluate("parts", 1, "--threshold", 0.5)
    assert code == 0
    assert "3 scans are left (3 of part 0 of 2)" in said


def test_a_part_that_there_is_not_is_refused(evaluate):
    code, said, _, _ = evaluate("parts", 2)
    assert code == 2
    assert "--part-id must be from 0 to --num-parts − 1, got 2 of 2" in said


def test_where_every_scan_failed_the_last_part_says_why(evaluate, compared):
    for path in (compared / "maps").iterdir():
        path.write_bytes(b"none")
    # Without a readable prediction it is not known whether they are maps or masks.
    assert evaluate("parts", 0)[0] == evaluate("whole")[0] == 65


@pytest.fixture
def part(tmp_path):
    """Score part 0 or 1 of two scans in an evaluation whose tables `write` writes."""
    scans = Scans(["a", "b"], name=str, files=lambda _: ())

    def run(index, write=lambda: None):
        with scoring(tmp_path, Failures(None), schedule=HERE, part=Part(index, 2)) as scores:
            work = {"depends": [], "keep": lambda item, made: None}
            found = scores.each(lambda _: Contribution(ScanScores({})), scans, **work)
            write()
            return found

    return run


def test_a_part_that_ends_while_another_one_joins_finds_nothing_left(part, tmp_path, monkeypatch):
    others = [lambda: part(1)]

    @contextmanager
    def lock(path, *, wait_s):
        if others:
            assert others.pop()() == ["a", "b"]
        yield

    monkeypatch.setattr(parts_module, "file_lock", lock)
    assert part(0) == ScansLeft({})
    assert not list(tmp_path.iterdir())


def test_what_was_scored_stays_where_tables_cannot_be_written(part, tmp_path):
    def fail():
        raise CannotWriteError("a rule", remedy="do that")

    assert part(1) == ScansLeft({0: 1})
    with pytest.raises(CannotWriteError):
        part(0, fail)
    assert len(list(tmp_path.glob("scored/*/*.npz"))) == 2
    assert part(0) == ["a", "b"]
    assert not list(tmp_path.iterdir())


def test_a_contribution_without_figures_is_read_as_it_was_written(tmp_path):
    made = Contribution(ScanScores({}), notes=("a", "b"), thresholds={"FLAIR+T1w": {"value": 0.1, "name": "ml:1"}})
    write_contribution(tmp_path / "one.npz", made, identity="x")
    assert read_contribution(tmp_path / "one.npz") == made
