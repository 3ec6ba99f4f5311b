"""Which scans an input means."""

from pathlib import Path

import pytest

from halebrain.core.errors import MissingInputError, UsageError
from halebrain.inference.scans import find_scans


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return paths


def test_one_file_with_its_mask(tmp_path: Path) -> None:
    image, mask = touch(tmp_path, "sub-1_FLAIR.nii.gz", "mask.nii.gz")
    (scan,) = find_scans(image, brain_mask=mask)
    assert (scan.image, scan.name, scan.brain_mask, scan.space) == (image, "sub-1_FLAIR", mask, "native")


def test_a_folder_is_its_images_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.nii.gz", "a.nii", "notes.txt", "deeper/c.nii.gz")
    assert [scan.name for scan in find_scans(tmp_path)] == ["a", "b", "c"]


def test_a_list_is_relative_to_itself(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.nii", "in/b.nii.gz")
    listing = tmp_path / "in" / "list.txt"
    listing.write_text("# mine\nb.nii.gz\n\n  a.nii  \n", encoding="utf-8")
    scans = find_scans(listing)
    assert [scan.name for scan in scans] == ["b", "a"]
    assert scans[0].image == tmp_path / "in" / "b.nii.gz"


def test_a_manifest_names_masks_and_spaces(tmp_path: Path) -> None:
    touch(tmp_path, "x.nii.gz", "m.nii.gz")
    table = tmp_path / "scans.tsv"
    table.write_text(
        "subject\timage\tmodality\tbrain_mask\tspace\n7\tx.nii.gz\tT1w\tm.nii.gz\tMNI152NLin2009aSym\n",
        encoding="utf-8",
    )
    (scan,) = find_scans(table)
    assert scan.name == "sub-7_T1w"
    assert scan.brain_mask == tmp_path / "m.nii.gz"
    assert scan.space == "MNI152NLin2009aSym"


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="must exist"):
        find_scans(tmp_path / "no.nii.gz")
    with pytest.raises(MissingInputError, match="at least one scan"):
        find_scans(tmp_path)
    (tmp_path / "empty.txt").write_text("# none\n", encoding="utf-8")
    with pytest.raises(MissingInputError, match="at least one scan"):
        find_scans(tmp_path / "empty.txt")


def test_one_mask_for_many_scans_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "b.nii")
    with pytest.raises(UsageError, match="single scan"):
        find_scans(tmp_path, brain_mask=tmp_path / "a.nii")


def test_scans_of_a_list_with_one_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.nii", "two/a.nii.gz", "b.nii")
    (tmp_path / "list.txt").write_text("one/a.nii\ntwo/a.nii.gz\nb.nii\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"different names, got a for 'a\.nii' and 'a\.nii\.gz'"):
        find_scans(tmp_path / "list.txt")
