import pytest

from halebrain.core.errors import ConfigError, DataError, MissingInputError
from halebrain.data.datasets import build_source, read_source


def table(root, text, name="scans.csv"):
    (root / name).write_text(text, encoding="utf-8")
    return root


def test_reads_the_usual_columns_whatever_their_case(tree):
    root = tree("a/1.nii.gz", "a/1_seg.nii.gz", "b/2.nii.gz")
    text = "Participant_ID,Image_Path,Modality,seg,Age,Gender,Group,site,split\n"
    text += "sub-01,a/1.nii.gz,T1w,a/1_seg.nii.gz,31.5,male,tumour,A,training\n02,b/2.nii.gz,FLAIR,,n/a,F,HC,B,test\n"
    result = read_source("table", table(root, text))
    assert result.problems == ()
    first, second = result.manifest
    assert (first.subject, first.modality, first.lesion) == ("01", "T1w", root / "a/1_seg.nii.gz")
    assert (first.age, first.sex, first.pathology, first.site, first.split) == (31.5, "M", "tumour", "A", "train")
    assert (second.age, second.pathology, second.split, second.lesion) == (None, "healthy", "test", None)


def test_the_table_itself_can_be_given_and_its_folder_is_not_listed(tree, tmp_path):
    root = tree("x.nii.gz")
    (root / "out").symlink_to(tmp_path)
    table(root, "id\tfile\n1\tx.nii.gz\n", "one.tsv")
    table(root, "id\tfile\n2\tx.nii.gz\n", "two.tsv")
    result = read_source("table", root / "two.tsv", {"modality": "T1w"})
    assert (result.manifest.subjects(), result.problems) == (["2"], ())
    with pytest.raises(MissingInputError, match=r"one.tsv, two.tsv"):
        read_source("table", root, {"modality": "T1w"})


def test_one_row_can_name_several_contrasts_under_any_name(tree):
    root = tree("1_t1.nii.gz", "1_fl.nii.gz", "2_t1.nii.gz", "gt.nii.gz")
    text = "PatientID;t1 file;fl file;gt\nP 1;1_t1.nii.gz;1_fl.nii.gz;gt.nii.gz\nP 2;2_t1.nii.gz;;\n"
    settings = {
        "columns": {"subject": "PatientID", "lesion": "gt"},
        "images": {"t1 file": "T1w", "fl file": "FLAIR"},
        "pathology": "ms",
    }
    result = read_source("table", table(root, text), settings)
    assert [r.scan_id for r in result.manifest] == ["sub-P1_FLAIR", "sub-P1_T1w", "sub-P2_T1w"]
    assert [r.lesion is not None for r in result.manifest] == [True, True, False]
    assert result.problems == ()


def test_absolute_paths_are_taken_and_a_slash_may_mean_the_tables_folder(tree, tmp_path):
    (tmp_path / "far.nii.gz").touch()
    root = table(tree("Train/near.nii.gz"), f"id,image\n1,{tmp_path}/far.nii.gz\n2,/Train/near.nii.gz\n")
    images = [r.image for r in read_source("table", root, {"modality": "T1w"}).manifest]
    assert images == [tmp_path / "far.nii.gz", root / "Train/near.nii.gz"]


def test_rows_that_cannot_be_used_are_named_by_their_number(tree):
    rows = ["1,x.nii.gz,T1w,,,", "2,gone.nii.gz,T1w,,,", ",x.nii.gz,T1w,,,", "4,x.nii.gz,,,,", "5,,T1w,,,"]
    rows += ["a_6,x.nii.gz,T1w,no.nii,old,late", "a-6,x.nii.gz,T2w,,,"]
    root = table(tree("x.nii.gz"), "id,image,modality,seg,age,split\n" + "\n".join(rows) + "\n")
    result = read_source("table", root)
    assert [r.scan_id for r in result.manifest] == ["sub-1_T1w", "sub-a6_T1w"]
    assert [p.removeprefix("scans.csv, row ").split(":")[0] for p in result.problems] == list("34567778")
    assert "gone.nii.gz" in result.problems[0]


def test_a_leak_in_the_table_names_the_subject(tree):
    text = "id,image,modality,split\n1,x.nii.gz,T1w,train\n1,x.nii.gz,T2w,test\n"
    with pytest.raises(DataError, match=r"1 \(test, train\)"):
        read_source("table", table(tree("x.nii.gz"), text))


@pytest.mark.parametrize(
    ("settings", "text", "kind", "word"),
    [
        ({}, "name,image,modality\n1,x,T1w\n", DataError, "column for the subject"),
        ({}, "id,picture,modality\n1,x,T1w\n", DataError, "column for the image"),
        ({}, "id,image\n1,x\n", DataError, "column for the modality"),
        ({}, "id,image,modality\n", DataError, "no row"),
        ({"columns": {"subject": "Patent"}}, "Patient,image,modality\n1,x,T1w\n", ConfigError, "'Patient'"),
        ({"columns": {"subjct": "id"}}, "id,image,modality\n1,x,T1w\n", ConfigError, "did you mean 'subject'"),
        ({"table": "no.csv"}, "id\n", MissingInputError, "no.csv"),
        ({"tabel": "x"}, "id\n", ConfigError, "did you mean 'table'"),
    ],
)
def test_refuses_what_cannot_be_meant(tree, settings, text, kind, word):
    root = table(tree("x"), text)
    with pytest.raises(kind) as caught:
        read_source("table", root, settings)
    assert word in str(caught.value)


def test_needs_no_settings():
    assert build_source("table").settings.table is None


def test_the_space_of_a_row_takes_precedence(tree):
    text = "id,image,modality,space\n1,a.nii,T1w,mni152nlin2009asym\n2,a.nii,T1w,\n3,a.nii,T1w,MNI\n"
    result = read_source("table", table(tree("a.nii"), text))
    assert [record.space for record in result.manifest] == ["MNI152NLin2009aSym", "native", "native"]
    assert result.problems == ("scans.csv, row 4: 'MNI' is not a valid space; it is left out",)


def test_columns_with_files_that_are_not_read_are_reported(tree):
    root = table(tree("a.nii", "m.nii"), "id,image,modality,mask,note\n1,a.nii,T1w,m.nii,good\n")
    (problem,) = read_source("table", root).problems
    assert problem.startswith("scans.csv: the column 'mask' names files ('m.nii') and is not read")


def test_a_row_without_any_image_is_reported(tree):
    root = table(tree("a.nii"), "id,t1,fl\n1,a.nii,\n2,,\n")
    result = read_source("table", root, {"images": {"t1": "T1w", "fl": "FLAIR"}})
    assert result.problems == ("scans.csv, row 3: no file in t1, fl; it is left out",)
