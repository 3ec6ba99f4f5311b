"""Inputs in mixed formats: which scans they mean, and what keeps them from being read."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_maker import LOUD, Maker, write_report

from halebrain.core.errors import DataError, MissingInputError, UsageError
from halebrain.inference.scans import find_scans
from halebrain.io.volume import read_volume


@pytest.fixture
def data(rng):
    return rng.integers(0, 3000, size=(8, 9, 10), dtype=np.uint16)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def names(source):
    return [scan.name for scan in find_scans(source)]


def test_a_folder_of_mixed_formats_holds_each_scan_once(tmp_path, data):
    root = tmp_path / "in"
    touch(root, "a.nii", "b.hdr", "b.img", "c.hdr.gz", "c.img.gz", "d.mgz", "e.MGH", "notes.txt", ".DS_Store", "x.img")
    nibabel.save(nibabel.Nifti1Image(data, np.diag([9.0, 9, 9, 1])), root / "a.nii")
    Maker(data).write(root / "f" / "deep" / "er")
    Maker(data).write_multi_frame(root / "g")
    shutil.make_archive(str(root / "h"), "zip", Maker(data).write(tmp_path / "other"))
    touch(root, "empty/notes.txt", "nifti/z.nii")
    assert names(root) == ["a", "b", "c", "d", "e", "f", "g", "h", "z", "x"]
    for scan in find_scans(root):
        if scan.name in "afgh":
            assert read_volume(scan.image).shape == data.shape
    with pytest.raises(MissingInputError, match="needs its header"):
        read_volume(root / "x.img")


def test_a_dicom_folder_is_one_scan(tmp_path, data, monkeypatch):
    folder = Maker(data).write(tmp_path / "patient")
    Maker(data[..., :3], number=1).write(folder / "scout")
    write_report(folder / "report" / "r")
    (scan,) = find_scans(folder)
    assert (scan.image, scan.name) == (folder, "patient")
    monkeypatch.chdir(folder)
    assert names(Path()) == ["patient"]


def test_a_folder_around_one_series_or_an_export_is_one_scan(tmp_path, data):
    Maker(data).write(tmp_path / "out" / "DICOM" / "00")
    assert [scan.image for scan in find_scans(tmp_path / "out")] == [tmp_path / "out"]
    halves = Maker(data)
    halves.write(tmp_path / "cd" / "IMG" / "00", skip=(0, 1, 2))
    halves.write(tmp_path / "cd" / "IMG2", skip=tuple(range(3, 10)))
    with pytest.raises(DataError, match="one sub-folder, got a series in both 'IMG' and 'IMG2'"):
        find_scans(tmp_path / "cd")
    # Beside them, what is whole goes on, and they are counted.
    Maker(data).write(tmp_path / "cd" / "OTHER", skip=())
    found = find_scans(tmp_path / "cd")
    assert [scan.name for scan in found] == ["OTHER"]
    assert [one.name for one in found.left_out] == ["IMG", "IMG2"]
    shutil.rmtree(tmp_path / "cd" / "OTHER")
    write_report(tmp_path / "cd" / "DICOMDIR")
    (scan,) = find_scans(tmp_path / "cd")
    assert read_volume(scan.image).shape == data.shape


def test_a_chosen_series_keeps_its_number(tmp_path, data):
    Maker(data, number=3).write(tmp_path / "p" / "a")
    Maker(data, number=5).write(tmp_path / "p" / "b")
    assert names(tmp_path / "p") == ["a", "b"]
    (scan,) = find_scans(tmp_path / "p#5")
    assert scan.name == "p-series5"
    (tmp_path / "list.txt").write_text("p#3\np#5\n")
    assert names(tmp_path / "list.txt") == ["p-series3", "p-series5"]
    (tmp_path / "table.tsv").write_text("subject\timage\tmodality\n1\tp#3\tT1w\n")
    (scan,) = find_scans(tmp_path / "table.tsv")
    assert read_volume(scan.image).shape == data.shape
    with pytest.raises(MissingInputError, match="must exist"):
        find_scans(tmp_path / "q#5")


def test_a_mask_goes_with_a_dicom_folder(tmp_path, data):
    folder = Maker(data).write(tmp_path / "p")
    (scan,) = find_scans(folder, brain_mask=tmp_path / "m.nii")
    assert scan.brain_mask == tmp_path / "m.nii"
    touch(folder, "beside.nii")
    assert names(folder) == ["p", "beside"]
    with pytest.raises(UsageError, match="single scan"):
        find_scans(folder, brain_mask=tmp_path / "m.nii")


def test_a_bids_data_set_is_its_anatomical_scans(tmp_path):
    touch(
        tmp_path,
        *("dataset_description.json", "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T1w.json"),
        *("sub-01/anat/sub-01_run-2_T1w.nii", "sub-01/func/sub-01_task-rest_bold.nii.gz"),
        *("sub-02/ses-a/anat/sub-02_ses-a_FLAIR.nii.gz", "sub-02/ses-b/anat/sub-02_ses-b_acq-x_T2w.nii.gz"),
        *("sub-02/ses-b/anat/sub-02_ses-b_inplaneT2.nii.gz", "sub-02/ses-b/anat/sub-02_ses-b_part-phase_T1w.nii.gz"),
        *("derivatives/x/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz", "sourcedata/sub-01/anat/sub-01_T1w.nii.gz"),
        *("sub-02/ses-b/dwi/sub-02_ses-b_dwi.nii.gz", "sub-01/anat/sub-01_T1map.nii.gz"),
    )
    assert names(tmp_path) == [
        "sub-01_T1w",
        "sub-01_run-2_T1w",
        "sub-02_ses-a_FLAIR",
        "sub-02_ses-b_acq-x_T2w",
        "sub-02_ses-b_inplaneT2",
    ]
    assert dict(find_scans(tmp_path).left_out) == {
        "derivatives/x/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz": "in derivatives",
        "sourcedata/sub-01/anat/sub-01_T1w.nii.gz": "in sourcedata",
        "sub-01/anat/sub-01_T1map.nii.gz": "with a suffix that is not processed",
        "sub-01/func/sub-01_task-rest_bold.nii.gz": "with a suffix that is not processed",
        "sub-02/ses-b/anat/sub-02_ses-b_part-phase_T1w.nii.gz": "the phase, the real or the imaginary part of an image",
        "sub-02/ses-b/dwi/sub-02_ses-b_dwi.nii.gz": "with a suffix that is not processed",
    }
    (tmp_path / "sub-01/anat/sub-01_T2w.nii.gz").symlink_to(tmp_path / ".git/annex/not-here")
    broken = {scan.name: scan for scan in find_scans(tmp_path)}["sub-01_T2w"]
    with pytest.raises(MissingInputError, match=r"not fetched in .*sub-01_T2w.*fetch it"):
        broken.check()


def test_a_bids_data_set_without_scans_holds_nothing(tmp_path):
    touch(tmp_path, "dataset_description.json", "sub-01/func/sub-01_task-rest_bold.nii.gz", "a.nii")
    with pytest.raises(MissingInputError, match=r"2 images are left out.*remove dataset_description.json"):
        find_scans(tmp_path)


ODD = ["a b", "it's", 'say "x"', "line\nbreak", "Ünïcödé→", "tab\there", "$HOME;rm", "-o"]


def test_odd_names_are_found(tmp_path, data):
    root = tmp_path / "in put"
    touch(root, *(f"{name}.nii" for name in ODD))
    assert sorted(names(root)) == sorted(ODD)
    Maker(data).write(root / "d\n i 'r'")
    assert "d\n i 'r'" in names(root)
    (root / "liste é.txt").write_text("\ufeffit's.nii\r\n# no\r\nÜnïcödé→.nii\n\u2028x.nii\n", encoding="utf-8")
    assert names(root / "liste é.txt") == ["it's", "Ünïcödé→", "x"]


def test_a_list_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        find_scans(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("target", "kind", "said"),
    [
        ("nowhere", MissingInputError, "a broken link"),
        ("out.nii", DataError, "must stay inside the folder"),
    ],
)
def test_a_link_that_leaves_the_folder_fails_alone(tmp_path, target, kind, said):
    touch(tmp_path, "out.nii", "in/a.nii")
    (tmp_path / "in" / "link.nii").symlink_to(tmp_path / target)
    whole, broken = find_scans(tmp_path / "in")
    whole.check()
    with pytest.raises(kind, match=f"{said}.*link.nii"):
        broken.check()


def test_a_link_to_a_folder_is_left_out(tmp_path):
    touch(tmp_path, "in/a.nii", "outside/b.nii")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "outside")
    found = find_scans(tmp_path / "in")
    assert [scan.name for scan in found] == ["a"]
    assert [name for name, _ in found.left_out] == ["link"]


def test_links_inside_the_folder_are_scans_and_others_concern_nobody(tmp_path):
    touch(tmp_path, "in/.git/objects/x.nii", "outside.txt")
    (tmp_path / "in" / "a.nii").symlink_to(Path(".git/objects/x.nii"))
    (tmp_path / "in" / "notes.txt").symlink_to(tmp_path / "outside.txt")
    assert names(tmp_path / "in") == ["a"]
    (tmp_path / "alias").symlink_to(tmp_path / "in")
    assert names(tmp_path / "alias") == ["a"]
    (tmp_path / "direct.nii").symlink_to(tmp_path / "in" / "a.nii")
    assert names(tmp_path / "direct.nii") == ["direct"]


def test_two_files_of_one_name_are_one_scan_that_fails(tmp_path):
    touch(tmp_path, "a.mgz", "a.hdr", "a.img", "b.nii")
    twins, other = find_scans(tmp_path)
    other.check()
    with pytest.raises(UsageError, match=r"different names, got a for 'a\.hdr' and 'a\.mgz'.*remove or rename one"):
        twins.check()


def every_byte(folder):
    import gzip

    for path in folder.rglob("*"):
        yield str(path.relative_to(folder)).encode()
        if path.is_file():
            raw = path.read_bytes()
            yield gzip.decompress(raw) if path.suffix == ".gz" else raw


def ellipsoid():
    index = np.stack(np.indices((36, 44, 34)), -1) - (17.5, 21.5, 16.5)
    inside = ((index * 5 / (65, 80, 60)) ** 2).sum(axis=-1) < 1
    return np.where(inside, 100 + np.random.default_rng(0).integers(0, 30, inside.shape), 0).astype(np.uint16)


AFFINE = np.array([[5.0, 0, 0, -90], [0, 5.0, 0, -128], [0, 0, 5.0, -74], [0, 0, 0, 1]])


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["folder", "zip", "multi-frame"])
def test_detect_reads_dicom_and_names_nobody(command, small_model, tmp_path, shape):
    maker = Maker(ellipsoid(), AFFINE)
    source = tmp_path / "head"
    if shape == "multi-frame":
        source = maker.write_multi_frame(tmp_path / "head.dcm")
    else:
        maker.write(source)
    if shape == "zip":
        source = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", source)).rename(tmp_path / "head.zip")
    settings = ("-m", small_model, "--threshold", 0.3, "--no-progress")
    code, said = command("detect", "-i", source, "-o", tmp_path / "out", *settings)
    assert code == 0, said.err
    assert (tmp_path / "out" / "head_desc-anomaly_mask.nii.gz").is_file()
    everything = b"\n".join(every_byte(tmp_path / "out")) + said.out.encode() + said.err.encode()
    assert not [word for word in LOUD if word.encode() in everything]
    # A second run sees that all is done already.
    assert command("detect", "-i", source, "-o", tmp_path / "out", *settings)[0] == 0


@pytest.mark.slow
def test_detect_refuses_dicom_in_one_line_that_names_nobody(command, small_model, tmp_path, data):
    settings = ("-m", small_model, "--threshold", 0.3, "--no-progress", "-o", tmp_path / "out")
    folder = Maker(data).write(tmp_path / "two" / "a").parent
    Maker(data, number=9).write(folder / "b")
    (folder / "DICOMDIR").write_bytes((write_report(tmp_path / "r")).read_bytes())
    for source, expected, word in (
        (folder, 65, "2 series: 4 (MR, 10 slices"),
        (Maker(data).write(tmp_path / "gap", skip=(4,)), 65, "1 missing of 10 slices (1 after slice 4)"),
        (Maker(data, modality="CT").write(tmp_path / "ct"), 65, "modality CT"),
        (tmp_path / "two#77", 65, "chosen series must exist"),
    ):
        code, said = command("detect", "-i", source, *settings)
        assert code == expected
        assert word in said.err
        assert len(said.err.strip().splitlines()) == 1
        assert not [loud for loud in LOUD if loud in said.err + said.out]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_detect_says_what_it_assumed_of_analyze(command, small_model, tmp_path):
    image = nibabel.AnalyzeImage(ellipsoid().astype(np.int16), None)
    image.header.set_zooms((5, 5, 5))
    nibabel.save(image, tmp_path / "head.img")
    arguments = ("-m", small_model, "--threshold", 0.3, "--no-progress", "-o", tmp_path / "out")
    code, said = command("detect", "-i", tmp_path / "head.hdr", *arguments)
    assert code == 0, said.err
    assert "Analyze states no orientation" in said.err
    assert "Analyze states no orientation" in (tmp_path / "out/head_desc-anomaly_provenance.json").read_text()
