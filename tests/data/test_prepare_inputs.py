"""What goes into `halebrain prepare`: DICOM that names people, an atlas of one's own, labels that are no file names."""

import gzip
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_maker import LOUD, Maker

from halebrain.benchmarking.judge import prepare
from halebrain.cli.main import main
from halebrain.core.errors import DataError
from halebrain.core.types import TEMPLATE_SPACE
from halebrain.data.prepare import PrepareTask, prepare_scan
from halebrain.data.prepared_set import read_entries
from halebrain.data.slices import build_store
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.nifti import write_volume
from halebrain.io.volume import read_array, read_volume
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor
from halebrain.preprocessing.prepared import open_scan, prepared_files, read_sidecar
from halebrain.workflows.export_nnunet import find_cases, write_dataset
from halebrain.workflows.prepare import read_raw

SETTINGS = {"shape": [32, 36, 30], "spacing_mm": 6.0, "registration": "none", "bias_correction": "none"}
CONFIG = PreprocessingConfig.model_validate(SETTINGS)
OPTIONS = ["--no-progress", *(f"--set={name}={value}" for name, value in SETTINGS.items())]
AFFINE = np.array([[5.0, 0, 0, -90], [0, 5.0, 0, -128], [0, 0, 5.0, -74], [0, 0, 0, 1]])


def head():
    index = np.stack(np.indices((36, 44, 34)), -1) - (17.5, 21.5, 16.5)
    inside = ((index * 5 / (65, 80, 60)) ** 2).sum(axis=-1) < 1
    return np.where(inside, 100 + np.random.default_rng(0).integers(0, 30, inside.shape), 0).astype(np.uint16)


@pytest.fixture
def scan(tmp_path):
    write_volume(tmp_path / "scan.nii.gz", head().astype(np.float32), AFFINE)
    lesion = np.zeros(head().shape, np.uint8)
    lesion[14:20, 18:24, 14:19] = 1
    write_volume(tmp_path / "lesion.nii.gz", lesion, AFFINE, dtype=np.uint8)
    return ScanRecord(
        *("a", tmp_path / "scan.nii.gz", "T1w"), lesion=tmp_path / "lesion.nii.gz", split="train", pathology="ms"
    )


def every_byte(folder):
    for path in sorted(folder.rglob("*")):
        yield str(path.relative_to(folder)).encode()
        if path.is_file():
            raw = path.read_bytes()
            yield gzip.decompress(raw) if path.suffix == ".gz" else raw


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["folder", pytest.param("zip", marks=pytest.mark.sweep)])
def test_dicom_becomes_a_data_set_that_names_nobody(command, tmp_path, shape):
    source = tmp_path / "head"
    Maker(head(), AFFINE).write(source)
    if shape == "zip":
        source = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", source)).rename(tmp_path / "head.zip")
    dataset, settings = tmp_path / "set", ("--modality", "T1w", "--workers", 1, *OPTIONS)
    code, said = command("prepare", "-i", source, "-o", dataset, *settings)
    assert code == 0, said.err
    (row,) = Manifest.read(dataset / "manifest.tsv").records
    assert row.scan_id == "sub-head_T1w"
    everything = b"\n".join(every_byte(dataset)) + said.out.encode() + said.err.encode()
    assert not [word for word in LOUD if word.encode() in everything]
    # Training on the series itself and on what was prepared of it come to the same.
    (raw,) = Manifest.read(dataset / "manifest_native.tsv").records
    mask = read_array(raw.brain_mask)[0] > 0
    assert mask.shape == read_volume(raw.image).shape
    stores = [build_store(Manifest((r,)), CONFIG, tmp_path / "cache", description="scans") for r in (raw, row)]
    np.testing.assert_array_equal(stores[0].images[0], stores[1].images[0])


@pytest.mark.slow
def test_a_dicom_that_fails_names_nobody_either(tmp_path, monkeypatch, capsys):
    source = tmp_path / "raw"
    Maker(head(), AFFINE).write(source / "gap", skip=(4,))
    Maker(head(), AFFINE, modality="CT").write(source / "ct")
    argv = ["halebrain", "prepare", "-i", str(source), "-o", str(tmp_path / "set"), "--modality", "T1w", *OPTIONS]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 3
    said = capsys.readouterr()
    everything = b"\n".join(every_byte(tmp_path / "set")) + (said.out + said.err).encode()
    assert b"modality CT" in everything
    assert not [word for word in LOUD if word.encode() in everything]


def prepared_row(scan, folder, config=CONFIG):
    prepare_scan(PrepareTask(scan, folder, config))
    (entry,) = read_entries(folder)
    return entry.working


def test_prepared_scans_are_judged_and_exported_as_raw_ones_are(scan, tmp_path):
    row = prepared_row(scan, tmp_path / "set")
    raw, prepared = (
        next(prepare(Manifest((record,)), Preprocessor(CONFIG), description="scans")) for record in (scan, row)
    )
    np.testing.assert_array_equal(raw.scan.image, prepared.scan.image)
    np.testing.assert_array_equal(raw.lesion, prepared.lesion)
    assert raw.lesion.any()
    folders = []
    for number, record in enumerate((scan, row)):
        modalities, cases = find_cases(Manifest((record,)))
        folders.append(tmp_path / f"Dataset00{number}_X")
        write_dataset(cases, modalities, folders[-1], preprocessor=Preprocessor(CONFIG))
    files = [sorted(path.relative_to(folder) for path in folder.rglob("*.nii.gz")) for folder in folders]
    assert files[0] == files[1]
    assert len(files[0]) == 2
    for name in files[0]:
        np.testing.assert_array_equal(read_array(folders[0] / name)[0], read_array(folders[1] / name)[0])


def test_a_cached_scan_that_lost_its_sidecar_is_another(scan, tmp_path):
    row = prepared_row(scan, tmp_path / "set")
    build_store(Manifest((row,)), CONFIG, tmp_path / "cache", description="scans")
    before = set((tmp_path / "cache").iterdir())
    next((tmp_path / "set").rglob("*desc-preproc*.json")).unlink()
    build_store(Manifest((row,)), CONFIG, tmp_path / "cache", description="scans")
    assert set((tmp_path / "cache").iterdir()) > before


def test_an_atlas_of_ones_own_names_its_space(scan, tmp_path):
    atlas = tmp_path / "my_atlas-2.nii.gz"
    shutil.copy(scan.image, atlas)
    config = CONFIG.model_copy(update={"template": atlas})
    dataset = tmp_path / "set"
    task = PrepareTask(scan, dataset, config)
    assert not prepare_scan(task).kept
    assert prepare_scan(task).kept
    (entry,) = read_entries(dataset)
    assert entry.files.image.name == "sub-a_space-myatlas2_desc-preproc_T1w.nii.gz"
    assert entry.working.space == "native"
    assert entry.sidecar["quality"]["figures"]["working_grid_mask_dice"] > 0.97
    assert entry.atlas is not None
    found = open_scan(
        Preprocessor(config), read_volume(entry.files.image), entry.files.image, brain_mask=entry.files.brain_mask
    )
    assert found.brain_mask.any()
    # Another atlas in the same file is another atlas.
    write_volume(atlas, np.roll(head().astype(np.float32), 1, axis=0), AFFINE)
    assert not prepare_scan(task).kept
    prepare_scan(PrepareTask(scan, dataset, CONFIG))
    with pytest.raises(DataError, match="hold each scan once"):
        read_entries(dataset)


def test_the_space_of_a_configuration():
    assert CONFIG.space == TEMPLATE_SPACE
    assert PreprocessingConfig(template=Path("x") / f"{TEMPLATE_SPACE}.nii").space == f"own{TEMPLATE_SPACE}"


@pytest.mark.parametrize("subject", ["../up", "a/b", "a b", "a\nb", "."])
def test_a_label_that_is_no_part_of_a_file_name_is_refused(scan, tmp_path, subject):
    record = ScanRecord(subject=subject, image=scan.image, modality="T1w")
    with pytest.raises(DataError, match="'subject' must hold only letters, digits"):
        prepare_scan(PrepareTask(record, tmp_path / "set", CONFIG))
    assert not (tmp_path / "set").exists()


def test_masks_with_ringing_are_prepared_at_their_true_volume_and_noted(tmp_path, scan):
    """A lesion of 8 ml and the brain, both after a shift by cubic splines and back."""
    from scipy import ndimage

    def ringing(truth):
        there = ndimage.shift(truth.astype(float), [1 / 3] * 3, order=3)
        return ndimage.shift(there, [-1 / 3] * 3, order=3).astype(np.float32)

    lesion, brain = np.zeros(head().shape), head() > 0
    lesion[14:18, 18:22, 14:18] = 1
    write_volume(tmp_path / "soft.nii.gz", ringing(lesion), AFFINE)
    write_volume(tmp_path / "brain.nii.gz", ringing(brain), AFFINE)
    record = replace(scan, lesion=tmp_path / "soft.nii.gz", brain_mask=tmp_path / "brain.nii.gz")
    outcome = prepare_scan(PrepareTask(record, tmp_path / "set", CONFIG))
    assert [flag.partition(":")[0] for flag in outcome.flags[:2]] == ["brain.nii.gz", "soft.nii.gz"]
    assert all("cut at 0.5, values below 0" in flag for flag in outcome.flags[:2])
    files = prepared_files(tmp_path / "set", record)
    found = read_sidecar(files.image)
    assert found["quality"]["figures"]["lesion_volume_ml"] == 8
    assert found["notes"] == list(outcome.flags[:2])
    np.testing.assert_array_equal(read_array(files.native_brain_mask)[0] > 0, brain)


@pytest.mark.parametrize("word", ["FLAIR", "flair"])
def test_scans_of_the_contrast_that_cannot_be_read_are_listed_whatever_the_word(tmp_path, word):
    write_volume(tmp_path / "raw" / "a_FLAIR.nii.gz", head().astype(np.float32), AFFINE)
    for name in ("b_FLAIR", "c_T1w"):
        (tmp_path / "raw" / f"{name}.nii.gz").symlink_to(tmp_path / "not fetched.nii.gz")
    found = read_raw(tmp_path / "raw", None, (), word)
    assert [record.modality for record in found.manifest] == ["FLAIR"]
    assert list(found.failed) == ["b_FLAIR"]
