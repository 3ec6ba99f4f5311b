import os

import pytest

from halebrain.core.errors import MissingInputError
from halebrain.data.datasets import read_source
from halebrain.io.manifest import Manifest
from halebrain.io.tree import FileTree, label


def test_lists_files_once_sorted_without_hidden_ones(tree):
    root = tree("b/x.nii.gz", "a/y.nii", "a/._y.nii", ".git/z.nii", "__MACOSX/a/y.nii", "note.txt")
    assert FileTree(root).names == ("a/y.nii", "b/x.nii.gz", "note.txt")
    assert list(FileTree(root).images()) == ["a/y.nii", "b/x.nii.gz"]


def test_matches_the_end_of_a_path_or_all_of_it(tree):
    found = FileTree(tree("a/x.nii", "a-b/x.nii", "b/a/x.nii", "x.nii"))
    assert [match[0] for _, match in found.match("a/x.nii")] == ["a/x.nii", "b/a/x.nii"]
    assert [match[0] for _, match in found.match("a/x.nii", prefix="")] == ["a/x.nii"]
    assert [match[0] for _, match in found.match(".*x.nii", prefix="a")] == ["a-b/x.nii", "a/x.nii"]
    assert list(found.match(".*", prefix="c")) == []


def test_links_that_leave_or_dangle_are_broken(tree, tmp_path):
    root = tree("annex/KEY.nii.gz")
    (tmp_path / "secret.nii.gz").touch()
    (tmp_path / "elsewhere").mkdir()
    (root / "inside.nii.gz").symlink_to("annex/KEY.nii.gz")
    (root / "out.nii.gz").symlink_to(tmp_path / "secret.nii.gz")
    (root / "gone.nii.gz").symlink_to("annex/NONE.nii.gz")
    (root / "loop.nii.gz").symlink_to("loop.nii.gz")
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    found = FileTree(root)
    (root / "annexed.nii.gz").symlink_to("../.git/annex/objects/x/KEY.nii.gz")
    found = FileTree(root)
    broken = {"out.nii.gz", "gone.nii.gz", "loop.nii.gz", "annexed.nii.gz"}
    assert set(found.names) == {"annex/KEY.nii.gz", "inside.nii.gz", *broken}
    assert set(found.broken) == broken
    assert "a link to a place outside the folder" in str(found.broken["out.nii.gz"])
    assert "a broken link" in str(found.broken["gone.nii.gz"])
    assert "fetch it (datalad get / git annex get)" in str(found.broken["annexed.nii.gz"])
    assert [name for name, _ in found.left_out] == ["folder"]


def test_a_root_that_is_itself_a_link_is_followed(tree, tmp_path):
    root = tree("x.nii.gz")
    (tmp_path / "link").symlink_to(root)
    assert FileTree(tmp_path / "link").names == ("x.nii.gz",)


def test_a_name_that_is_no_utf8_is_broken_and_can_be_printed(tree):
    root = tree("good.nii.gz")
    os.close(os.open(os.fsencode(root) + b"/b\xe9.nii.gz", os.O_CREAT))
    found = FileTree(root)
    assert len(found.names) == 2
    (error,) = found.broken.values()
    assert "a file name must be UTF-8" in str(error)
    assert rb"b\xe9.nii.gz" in str(error).encode()


def test_a_label_has_letters_and_digits_only():
    assert label("Philips_VU .PETMR_01.") == "PhilipsVUPETMR01"


@pytest.mark.parametrize("odd", ["a b", 'quo"te', "new\nline", "ta\tb", "é漢", "cr\rx", "#x", " edge "])
def test_odd_folder_names_survive_the_manifest(tree, tmp_path, odd):
    root = tree(f"{odd}/IXI002-Guys-0828-T1.nii.gz")
    manifest = read_source("ixi", root).manifest
    manifest.write(tmp_path / "m.tsv")
    assert Manifest.read(tmp_path / "m.tsv").records == manifest.records


def test_a_missing_root_says_what_was_expected(tmp_path):
    with pytest.raises(MissingInputError, match=r"IXI-T1/IXI002") as caught:
        read_source("ixi", tmp_path / "none")
    assert "\n" not in str(caught.value)
