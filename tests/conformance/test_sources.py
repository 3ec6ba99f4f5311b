import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from halebrain.core.errors import ConfigError, HalebrainError, MissingInputError
from halebrain.data.datasets import SOURCES, build_source
from halebrain.io.manifest import Manifest

NEEDED = {"folder": {"pattern": "{subject}_T1w.nii.gz", "modality": "T1w"}}
FOLDERS = [
    "",
    "Train",
    "Test",
    "ixi",
    "Brats21",
    "t1",
    "seg",
    "pre",
    "Utrecht",
    "0",
    "patient01",
    "brain_train",
    "splits",
]
FOLDERS += ["sub-01", "anat", "derivatives", "é ä", "new\nline", 'quo"te', "BraTS2021_00000", "raw", ".hidden"]
FILES = ["IXI002-Guys-0828-T1.nii.gz", "IXI002-Guys-0828_t1.nii.gz", "IXI.csv", "BraTS2021_00000_t1.nii.gz", "x.nii"]
FILES += ["BraTS-GLI-00005-100-t1n.nii.gz", "FLAIR.nii.gz", "wmh.nii.gz", "patient01_FLAIR.nii.gz", "00000.nii.gz"]
FILES += [
    "sub-01_T1w.nii.gz",
    "sub-01_label-lesion_mask.nii.gz",
    "sub-02_T1w.nii",
    "participants.tsv",
    "a\nb_T1w.nii.gz",
]
FILES += ["sub-r001s001_ses-1_space-MNI152NLin2009aSym_T1w.nii.gz", "scans.csv", "IXI_test.csv", "patient_info.csv"]
TEXTS = [
    "",
    "id,image,modality\n1,x.nii,T1w\n",
    "participant_id\tage\nsub-01\t4\n",
    "a\n\n,,\n",
    '"',
    "IXI_ID,AGE\n2,30\n",
]


@pytest.fixture(params=SOURCES.names())
def name(request):
    return request.param


@pytest.fixture
def source(name):
    return build_source(name, NEEDED.get(name))


def test_the_layout_is_one_line(source):
    assert source.layout
    assert "\n" not in source.layout


def test_a_missing_folder_says_what_was_expected(source, tmp_path):
    with pytest.raises(MissingInputError) as caught:
        source(tmp_path / "none")
    assert source.layout in str(caught.value)


def test_a_folder_of_something_else_is_refused_in_one_line(source, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "sub").mkdir()
    with pytest.raises(MissingInputError) as caught:
        source(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_setting_is_refused(name):
    with pytest.raises(ConfigError, match="known keys only"):
        build_source(name, {**NEEDED.get(name, {}), "nonsense": 1})


@pytest.mark.parametrize("name", SOURCES.names())
@hypothesis_settings(max_examples=25, deadline=None)
@given(
    names=st.lists(
        st.tuples(st.sampled_from(FOLDERS), st.sampled_from(FOLDERS), st.sampled_from(FILES), st.sampled_from(TEXTS)),
        max_size=12,
    )
)
def test_any_folder_is_a_manifest_that_can_be_written_or_an_error_in_one_line(name, names):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        root.mkdir()
        for above, below, file, text in names:
            path = root / above / below / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text if path.suffix in (".csv", ".tsv") else "")
        error = None
        try:
            result = build_source(name, NEEDED.get(name))(root)
        except HalebrainError as raised:
            error = raised
        said = result.problems if error is None else [str(error)]
        assert not [line for line in said if "\n" in line]
        if error is not None:
            return
        result.manifest.write(root / "manifest.tsv")
        assert Manifest.read(root / "manifest.tsv").records == result.manifest.records
