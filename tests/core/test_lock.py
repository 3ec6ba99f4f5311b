"""The lock beside a file: one at a time, nothing left behind, and the dead hold nothing."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from halebrain.core.errors import CannotWriteError, UnavailableError
from halebrain.core.files import file_lock, lock_if_free

COUNT = """
import sys
from pathlib import Path
from halebrain.core.files import file_lock, lock_if_free
path = Path(sys.argv[1])
for _ in range(20):
    with file_lock(path):
        path.write_text(str(int(path.read_text()) + 1))
"""
DIE = """
import os, sys
from filelock import SoftFileLock
lock = SoftFileLock(sys.argv[1])
lock.acquire()
os._exit(9)
"""


def test_processes_that_change_one_file_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "count.txt"
    path.write_text("0")
    running = [subprocess.Popen([sys.executable, "-c", COUNT, str(path)]) for _ in range(2)]
    assert [process.wait(300) for process in running] == [0, 0]
    assert path.read_text() == "40"
    assert list(tmp_path.iterdir()) == [path]


def test_who_waits_too_long_is_told_what_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    with file_lock(path), pytest.raises(UnavailableError, match=r"for more than 0\.1 s.*\.lock-table\.tsv"):
        _enter(path, wait_s=0.1)
    _enter(path, wait_s=0.1)
    assert list(tmp_path.iterdir()) == []


def test_an_error_inside_lets_go(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), file_lock(tmp_path / "a"):
        raise ValueError("inside")
    done = threading.Thread(target=_enter, args=(tmp_path / "a",))
    done.start()
    done.join(30)
    assert not done.is_alive()
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_died_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    subprocess.run([sys.executable, "-c", DIE, str(tmp_path / ".lock-table.tsv")], check=False)
    assert (tmp_path / ".lock-table.tsv").exists()
    _enter(path, wait_s=30)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotWriteError, match="writable"):
        _enter(tmp_path / "file" / "a")


def _enter(path: Path, *, wait_s: float = 60) -> None:
    with file_lock(path, wait_s=wait_s):
        pass


def test_a_lock_that_another_has_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "cell"
    with lock_if_free(path) as first:
        assert first
        with lock_if_free(path) as second:
            assert not second
        with pytest.raises(UnavailableError):
            _enter(path, wait_s=0.1)
    assert list(tmp_path.iterdir()) == []
