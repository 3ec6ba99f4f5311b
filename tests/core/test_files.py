import stat

import pytest

from halebrain.core.errors import CannotWriteError
from halebrain.core.files import atomic_folder, atomic_path, write_text


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "map.nii.gz"
    with atomic_path(path) as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert [p.name for p in path.parent.iterdir()] == ["map.nii.gz"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o400


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "before")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "model"

    def fail():
        with atomic_folder(target) as temporary:
            (temporary / "one").write_text("1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(target) as temporary:
        (temporary / "one").write_text("1")
    assert (target / "one").read_text() == "1"


def test_a_folder_is_replaced_only_when_asked(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").write_text("")
    with pytest.raises(CannotWriteError, match="--overwrite"), atomic_folder(target):
        pass
    with atomic_folder(target, overwrite=True) as temporary:
        (temporary / "new").write_text("")
    assert [p.name for p in target.iterdir()] == ["new"]


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWriteError, match="writable"), atomic_path(tmp_path / "file" / "x.txt"):
        pass
