import itertools
from dataclasses import replace

import pytest

from halebrain.core.errors import DataError, MissingInputError
from halebrain.io.manifest import Manifest, ScanRecord, splits_by_subject


@pytest.fixture
def records(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz", "m.nii.gz"):
        (tmp_path / name).touch()
    first = ScanRecord("01", tmp_path / "a.nii.gz", "T1w", split="train", pathology="healthy", age=40.5, sex="F")
    second = ScanRecord("02", tmp_path / "b.nii.gz", "FLAIR", lesion=tmp_path / "m.nii.gz", split="test", session="1")
    return first, second


def test_a_manifest_survives_the_round_trip_and_a_move(tmp_path, records):
    Manifest(records).write(tmp_path / "m.tsv")
    assert Manifest.read(tmp_path / "m.tsv").records == records
    assert str(tmp_path) not in (tmp_path / "m.tsv").read_text()


def test_a_subject_in_two_splits_is_an_error_that_names_it(records):
    first, second = records
    with pytest.raises(DataError, match=r"01 \(test, train\)"):
        Manifest((first, replace(second, subject="01")))


def test_a_scan_twice_is_an_error(records):
    with pytest.raises(DataError, match="sub-01_T1w twice"):
        Manifest((records[0], records[0]))


def test_the_fingerprint_depends_on_splits_and_not_on_order(records):
    first, second = records
    assert Manifest((first, second)).fingerprint() == Manifest((second, first)).fingerprint()
    assert Manifest((first, second)).fingerprint() != Manifest((replace(first, split="val"), second)).fingerprint()


@pytest.mark.parametrize(
    ("text", "kind", "word"),
    [
        ("subject\timage\tmodality\tsplt\n1\ta.nii.gz\tT1w\ttrain\n", DataError, "did you mean 'split'"),
        ("subject\tmodality\n1\tT1w\n", DataError, "column 'image'"),
        ("subject\timage\tmodality\n1\tno.nii.gz\tT1w\n", MissingInputError, "line 2"),
        ("subject\timage\tmodality\tage\n1\ta.nii.gz\tT1w\told\n", DataError, "'old'"),
        ("subject\timage\tmodality\tsplit\n1\ta.nii.gz\tT1w\ttraining\n", DataError, "train, val, test"),
        ("subject\timage\tmodality\nn/a\ta.nii.gz\tT1w\n", DataError, "'subject' must be given"),
        ("subject\timage\tmodality\n", DataError, "no rows"),
        ("subject\timage\tmodality\tlesion\n1\ta.nii.gz\tT1w\ta.nii.gz\n", DataError, "under 'lesion' and 'image'"),
    ],
)
def test_refuses_bad_tables(tmp_path, text, kind, word):
    (tmp_path / "a.nii.gz").touch()
    (tmp_path / "m.tsv").write_text(text)
    with pytest.raises(kind) as caught:
        Manifest.read(tmp_path / "m.tsv")
    assert word in str(caught.value)
    assert "m.tsv" in str(caught.value)


def test_subsets_are_nested_seeded_and_keep_all_scans_of_a_subject(tmp_path):
    image = tmp_path / "a.nii.gz"
    rows = tuple(
        ScanRecord(f"{n:02}", image, modality, split="train") for n in range(12) for modality in ("T1w", "FLAIR")
    )
    manifest = Manifest(rows)
    subsets = [set(manifest.subset(n, seed=3).subjects()) for n in (1, 2, 5, 12)]
    assert [len(s) for s in subsets] == [1, 2, 5, 12]
    assert all(small < large for small, large in itertools.pairwise(subsets))
    assert len(manifest.subset(5, seed=3)) == 10
    assert any(set(manifest.subset(1, seed=s).subjects()) != subsets[0] for s in range(4, 9))
    without = Manifest(tuple(r for r in rows if r.subject not in subsets[0]))
    assert set(without.subset(4, seed=3).subjects()) == subsets[2] - subsets[0]
    with pytest.raises(DataError, match="13 of 12"):
        manifest.subset(13, seed=3)


@pytest.mark.parametrize("name", ["a b", 'quo"te', "new\nline", "ta\tb", "é漢", "car\rriage", " edge ", "#", "'"])
def test_a_file_of_any_name_survives_the_round_trip(tmp_path, name):
    image = tmp_path / name
    image.touch()
    Manifest((ScanRecord("01", image, "T1w", site="Guy's"),)).write(tmp_path / "m.tsv")
    assert Manifest.read(tmp_path / "m.tsv").records == (ScanRecord("01", image, "T1w", site="Guy's"),)


def test_a_link_is_listed_where_it_lies(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "set").mkdir()
    (tmp_path / "store" / "key").touch()
    image = tmp_path / "set" / "sub-01_T1w.nii.gz"
    image.symlink_to(tmp_path / "store" / "key")
    Manifest((ScanRecord("01", image, "T1w"),)).write(tmp_path / "set" / "m.tsv")
    assert "\tsub-01_T1w.nii.gz\t" in (tmp_path / "set" / "m.tsv").read_text()
    assert Manifest.read(tmp_path / "set" / "m.tsv").records[0].image == image, "its sidecar lies beside the link"


@pytest.mark.parametrize(
    "word", ["healthy", "Healthy", "HC", "control", "Controls", "Healthy_Controls", "normal control"]
)
def test_healthy_people_are_healthy_whatever_the_usual_word(tmp_path, word):
    (tmp_path / "a.nii.gz").touch()
    (tmp_path / "m.csv").write_text(f"subject,image,modality,pathology\n01,a.nii.gz,T1w,{word}\n02,a.nii.gz,T1w,ms\n")
    healthy, ill = Manifest.read(tmp_path / "m.csv")
    assert (healthy.is_healthy, healthy.condition) == (True, "healthy")
    assert (ill.is_healthy, ill.condition) == (False, "ms")


def test_a_file_name_that_is_no_utf8_is_refused(tmp_path):
    with pytest.raises(DataError, match="must be UTF-8"):
        Manifest((ScanRecord("01", tmp_path / "b\udce9.nii", "T1w"),)).write(tmp_path / "m.tsv")
    assert not (tmp_path / "m.tsv").exists()


def test_labels_may_have_the_prefix_that_bids_gives_them(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    (tmp_path / "m.tsv").write_text("subject\tsession\timage\tmodality\nsub-01\tses-1\ta.nii.gz\tT1w\n")
    (record,) = Manifest.read(tmp_path / "m.tsv")
    assert (record.subject, record.session, record.scan_id) == ("01", "1", "sub-01_ses-1_T1w")


def test_entities_tell_scans_of_one_modality_apart(tmp_path):
    image = tmp_path / "a.nii.gz"
    image.touch()
    manifest = Manifest(tuple(ScanRecord("01", image, "T1w", session="1", entities=f"run-{n}") for n in (1, 2)))
    assert [r.scan_id for r in manifest] == ["sub-01_ses-1_run-1_T1w", "sub-01_ses-1_run-2_T1w"]
    manifest.write(tmp_path / "m.tsv")
    assert Manifest.read(tmp_path / "m.tsv").records == manifest.records


def test_rows_of_a_contrast_are_found_whatever_the_word_for_it(tmp_path):
    words = ("t1", "mprage", "T1w", "T2w", "other")
    manifest = Manifest(tuple(ScanRecord(str(n), tmp_path / "a.nii", word) for n, word in enumerate(words)))
    assert [record.contrast for record in manifest] == ["T1w", "T1w", "T1w", "T2w", "other"]
    assert [record.modality for record in manifest.of_contrasts(("T1w",))] == ["t1", "mprage", "T1w"]
    assert [record.modality for record in manifest.of_contrasts(("other", "t2"))] == ["T2w", "other"]
    assert manifest.of_contrasts(()) == manifest


@pytest.mark.parametrize("age", ["-9", "999"])
def test_an_age_that_stands_for_none_is_refused(tmp_path, age):
    (tmp_path / "a.nii").touch()
    (tmp_path / "m.tsv").write_text(f"subject\timage\tmodality\tage\n1\ta.nii\tT1w\t{age}\n")
    with pytest.raises(DataError, match=rf"from 0 to 130, got '{age}' in '.*, line 2'"):
        Manifest.read(tmp_path / "m.tsv")


@pytest.mark.parametrize("word", ["N/A", "NA", "nan", "None", "-"])
def test_words_for_nothing_are_no_disease_site_sex_or_session(tmp_path, word):
    (tmp_path / "a.nii").touch()
    header = "subject\timage\tmodality\tpathology\tsite\tsex\tsession\n"
    (tmp_path / "m.tsv").write_text(f"{header}1\ta.nii\tT1w" + f"\t{word}" * 4 + "\n")
    (record,) = Manifest.read(tmp_path / "m.tsv")
    assert (record.pathology, record.site, record.sex, record.session) == (None,) * 4


def test_a_subject_has_the_split_of_any_of_its_rows(tmp_path):
    rows = [ScanRecord("1", tmp_path, modality, split=split) for modality, split in (("T1w", "train"), ("T2w", None))]
    for order in (rows, rows[::-1]):
        assert splits_by_subject(Manifest((*order, ScanRecord("2", tmp_path, "T1w")))) == {"1": "train", "2": None}
