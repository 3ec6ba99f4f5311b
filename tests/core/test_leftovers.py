"""What a killed process left is swept; what belongs to a living one, or to somebody else, stays."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from halebrain.core.files import atomic_folder, write_text
from halebrain.core.leftovers import MARK, new_scratch_folder, scratch_folder, sweep, temporary_file, temporary_folder

WRITER = """
import sys, time
from pathlib import Path
from halebrain.core.leftovers import new_scratch_folder, temporary_file, temporary_folder
place = Path(sys.argv[1])
temporary_file(place / "a map of many letters, long enough to be cut at its beginning.nii.gz")
(temporary_folder(place) / "half a scan").write_text("half")
(new_scratch_folder(place) / "unpacked").write_text("one")
print("written", flush=True)
time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that wrote temporary things into `tmp_path` and waits."""
    started = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE)
    assert started.stdout.readline() == b"written\n"
    yield started
    started.kill()
    started.communicate()


def names(place):
    return sorted(path.name for path in place.iterdir())


def test_what_a_living_process_writes_stays_and_what_a_killed_one_left_goes(writer, tmp_path):
    there = names(tmp_path)
    assert len(there) == 3
    assert all(len(name) < 120 for name in there)
    assert any(name.endswith(".nii.gz") for name in there)
    for mark in (MARK, "halebrain-"):
        sweep(tmp_path, mark)
    assert names(tmp_path) == there
    writer.kill()
    # Not waited for: what its parent did not ask for yet is dead all the same.
    for _ in range(100):
        sweep(tmp_path)
        if len(names(tmp_path)) == 1:
            break
        time.sleep(0.05)
    assert [name[:10] for name in names(tmp_path)] == ["halebrain-"]
    sweep(tmp_path, "halebrain-")
    assert names(tmp_path) == []


def test_the_first_write_into_a_folder_sweeps_it(writer, tmp_path):
    writer.kill()
    writer.wait()
    write_text(tmp_path / "a.txt", "whole")
    assert [name for name in names(tmp_path) if name.startswith(MARK)] == []
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_what_this_process_writes_stays(tmp_path):
    with atomic_folder(tmp_path / "model") as folder, scratch_folder() as scratch:
        beside = temporary_file(tmp_path / "b.txt")
        sweep(tmp_path)
        sweep(scratch.parent, "halebrain-")
        assert folder.is_dir()
        assert beside.is_file()
        assert scratch.is_dir()
    assert not scratch.exists()


def test_a_number_that_went_to_another_process_is_not_taken_for_the_dead_one(tmp_path):
    mine = temporary_folder(tmp_path)
    began = mine.name.split("-")[1].split(".")[2]
    assert began.isdigit()
    mine.rename(tmp_path / mine.name.replace(f".{began}-", f".{int(began) - 1}-"))
    sweep(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "swept"),
    [
        (".part-00000000.7.12-abcdefgh-map.nii.gz", True),  # another machine's
        (".part-ab_defg1-map.nii.gz", True),  # an earlier version's
        (".part-model-ab_defg1", True),
        (".part-Of my own", False),
        ("halebrain-demo", False),
    ],
)
def test_of_what_nobody_can_tell_only_what_was_left_for_a_day_goes(tmp_path, name, swept):
    path = tmp_path / name
    path.mkdir()
    (path / "inside").write_text("")

    def sweep_both():
        sweep(tmp_path)
        sweep(tmp_path, "halebrain-")

    before = time.time() - 2 * 24 * 3600
    os.utime(path, (before, before))
    sweep_both()
    assert path.is_dir(), "a file in it is young"
    os.utime(path / "inside", (before, before))
    os.utime(path, (before, before))
    sweep_both()
    assert path.exists() != swept


def test_a_link_is_removed_and_not_followed(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "data").write_text("")
    link = tmp_path / ".part-00000000.7.12-abcdefgh"
    link.symlink_to(tmp_path / "kept")
    before = time.time() - 2 * 24 * 3600
    os.utime(link, (before, before), follow_symlinks=False)
    sweep(tmp_path)
    assert names(tmp_path) == ["kept"]
    assert (tmp_path / "kept" / "data").is_file()


def test_a_folder_that_is_not_there_is_not_swept(tmp_path):
    sweep(tmp_path / "none")
    with pytest.raises(OSError, match="none"):
        new_scratch_folder(Path(tmp_path / "none"))
