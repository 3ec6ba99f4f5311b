"""Which extractor is taken, and what is said where one fails."""

import numpy as np
import pytest

from halebrain.core.errors import DataError
from halebrain.core.types import Volume
from halebrain.preprocessing.brain import auto, extract_automatically
from halebrain.preprocessing.brain.base import BrainMask
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor

SYNTHSTRIP = """
import nibabel, numpy as np
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
image = nibabel.load(options["-i"])
nibabel.save(nibabel.Nifti1Image((image.get_fdata() > 50).astype(np.uint8), image.affine), options["-m"])
"""
HDBET = """
import nibabel, numpy as np
if "--help" in sys.argv:
    print("--save_bet_mask")
    sys.exit(0)
image = nibabel.load(sys.argv[2])
mask = nibabel.Nifti1Image((image.get_fdata() > 50).astype(np.uint8), image.affine)
nibabel.save(mask, sys.argv[4][:-7] + "_bet.nii.gz")
"""


@pytest.fixture(autouse=True)
def atlas(monkeypatch):
    """The atlas takes seconds and wants a head; here it takes every voxel above 50."""

    def extract(volume):
        return BrainMask(volume.data > 50, "atlas", 0.9, 1000.0)

    monkeypatch.setattr(auto, "extract_by_atlas", extract)


@pytest.fixture
def hdbet(tools, tmp_path):
    def install(script=HDBET):
        tools("hd-bet", script)
        path = tmp_path / "home" / "hd-bet_params" / "release_2.0.0" / "fold_all" / "checkpoint_final.pth"
        path.parent.mkdir(parents=True)
        path.touch()

    return install


def test_a_stripped_scan_asks_nobody(tools, oblique):
    tools("mri_synthstrip", "sys.exit('asked')")
    volume, brain = oblique
    assert extract_automatically(Volume(volume.data * brain, volume.affine)).method == "stripped"


@pytest.mark.slow
def test_synthstrip_comes_before_hdbet_and_the_atlas_last(tools, hdbet, oblique, caplog):
    assert extract_automatically(oblique[0]).method == "atlas"
    hdbet()
    assert extract_automatically(oblique[0]).method == "hdbet"
    tools("mri_synthstrip", SYNTHSTRIP)
    found = extract_automatically(oblique[0])
    assert found.method == "synthstrip"
    assert found.notes == ()
    assert caplog.text == ""


@pytest.mark.slow
def test_one_that_fails_is_named_on_the_log_and_in_the_notes(tools, hdbet, oblique, caplog):
    tools("mri_synthstrip", "sys.exit('no licence')")
    hdbet()
    found = extract_automatically(oblique[0])
    assert found.method == "hdbet"
    assert len(found.notes) == 1
    assert "SynthStrip failed" in found.notes[0]
    assert "no licence" in found.notes[0]
    assert "head.nii.gz: SynthStrip failed" in caplog.text


def test_all_that_fail_are_named(tools, hdbet, oblique, monkeypatch):
    monkeypatch.setenv("HALEBRAIN_SYNTHSTRIP_WEIGHTS", "/nowhere.pt")
    hdbet("sys.exit('out of memory')")
    found = extract_automatically(oblique[0])
    assert found.method == "atlas"
    assert [note.split()[0] for note in found.notes] == ["SynthStrip", "HD-BET"]


def test_what_no_one_finds_is_an_error(oblique, monkeypatch):
    def refuse(volume):
        raise DataError("the brain must be found in the head", where=volume.name)

    monkeypatch.setattr(auto, "extract_by_atlas", refuse)
    with pytest.raises(DataError, match=r"head\.nii\.gz"):
        extract_automatically(oblique[0])


@pytest.mark.slow
def test_the_notes_become_flags(tools, hdbet, oblique):
    tools("mri_synthstrip", "sys.exit('no licence')")
    hdbet()
    config = PreprocessingConfig(
        brain="auto", registration="none", bias_correction="none", shape=(32, 32, 24), spacing_mm=6
    )
    scan = Preprocessor(config).run(oblique[0])
    assert scan.qc.brain_method == "hdbet"
    assert "no licence" in scan.qc.flags[0]
    assert np.array_equal(scan.native_brain_mask, oblique[1])


def test_remarks_of_the_extractor_that_is_taken_stay(oblique, monkeypatch):
    def remarking(volume):
        return BrainMask(volume.data > 50, "atlas", 0.9, 1000.0, notes=("a remark",))

    monkeypatch.setattr(auto, "extract_by_atlas", remarking)
    assert extract_automatically(oblique[0]).notes == ("a remark",)
