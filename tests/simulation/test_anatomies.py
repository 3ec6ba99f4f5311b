"""Brains made of label maps and of real T1 scans, which are made here."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from dicom_maker import Maker

from halebrain.core.errors import ConfigError, DataError, MissingInputError, UsageError
from halebrain.core.random import make_generator
from halebrain.data.datasets import bids_manifest
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.nifti import write_volume
from halebrain.preprocessing.geometry import working_grid
from halebrain.simulation.anatomy import CSF, GM, VENTRICLE, WM, build_anatomy, sample_anatomy, template_tissues
from halebrain.simulation.anatomy_source import ANATOMY_SOURCES, gather_anatomies, load_base
from halebrain.simulation.config import CohortConfig, grid_shape
from halebrain.simulation.generate import ANATOMIES, generate_cohort
from halebrain.simulation.subject import SubjectParams
from halebrain.workflows.settings import CohortSettings

SHAPE, SPACING = (64, 64, 52), 3.0
NUMBERS = {WM: 2, GM: 3, 2: 10, CSF: 24, VENTRICLE: 4}


def template_labels(folder, *, name="map", extra=None):
    """Write the template's tissues as a label map with a scalp around, and return its path."""
    tissues = template_tissues(SHAPE, SPACING)
    labels = np.zeros(SHAPE, np.int16)
    inside = tissues.sum(axis=0) > 0.5
    for tissue, number in NUMBERS.items():
        labels[inside & (tissues.argmax(axis=0) == tissue)] = number
    if extra is not None:
        labels[:3, :3, :3] = extra
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.nii.gz"
    write_volume(path, labels, working_grid(SHAPE, SPACING).affine, dtype=np.int16)
    return path


def gather(kind, place, folder):
    return gather_anatomies(kind, place, folder, shape=SHAPE, spacing_mm=SPACING)


@pytest.mark.slow
def test_a_label_map_becomes_the_tissues_that_it_names(tmp_path):
    template_labels(tmp_path / "maps", extra=507)
    (name,) = gather("labels", tmp_path / "maps", tmp_path / "kept")
    tissues, truth = load_base(tmp_path / "kept", name), template_tissues(SHAPE, SPACING)
    inside = tissues.sum(axis=0) > 0.5
    np.testing.assert_allclose(tissues.sum(axis=0)[inside], 1, atol=2e-3)
    for tissue in (WM, GM, VENTRICLE):
        one, other = tissues[tissue] > 0.5, truth[tissue] > 0.5
        assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.8


def test_every_source_is_an_option_of_the_cohort():
    assert set(ANATOMY_SOURCES) <= {field.name for field in fields(CohortSettings)}


def test_unknown_labels_are_named(tmp_path):
    template_labels(tmp_path / "maps", extra=4242)
    with pytest.raises(DataError, match=r"labels must be FreeSurfer's, got unknown 4242 in '.*map\.nii\.gz'"):
        gather("labels", tmp_path / "maps", tmp_path / "kept")
    write_volume(tmp_path / "maps" / "map.nii.gz", np.random.default_rng(0).random((8, 8, 8)), np.eye(4))
    with pytest.raises(DataError, match="whole numbers"):
        gather("labels", tmp_path / "maps", tmp_path / "kept")


def test_nothing_to_make_brains_of_is_said(tmp_path):
    with pytest.raises(MissingInputError):
        gather("labels", tmp_path / "nowhere", tmp_path)
    (tmp_path / "empty").mkdir()
    for kind in ANATOMY_SOURCES.names():
        with pytest.raises(MissingInputError):
            gather(kind, tmp_path / "empty", tmp_path)
    template_labels(tmp_path / "derivative", name="sub-1_dseg")
    (tmp_path / "derivative" / "dataset_description.json").write_text('{"DatasetType": "derivative"}')
    with pytest.raises(UsageError, match="got a BIDS data set"):
        gather("labels", tmp_path / "derivative", tmp_path)
    with pytest.raises(ConfigError, match="labels"):
        gather("label", tmp_path, tmp_path)
    with pytest.raises(MissingInputError, match="must exist"):
        load_base(tmp_path, "gone")


def test_a_brain_of_a_base_keeps_its_tissues_and_is_another_each_time():
    base = template_tissues(SHAPE, SPACING)
    one, other = (
        build_anatomy(sample_anatomy(make_generator(n)), shape=SHAPE, spacing_mm=SPACING, base=base) for n in (1, 2)
    )
    for anatomy in (one, other):
        total = anatomy.tissues.sum(dim=0)[anatomy.brain_mask].numpy()
        np.testing.assert_allclose(total, 1, atol=1e-4)
        assert not anatomy.tissues[:, ~anatomy.brain_mask].any()
        share = anatomy.tissues[WM].sum() / anatomy.brain_mask.sum()
        assert float(share) == pytest.approx(base[WM].sum() / base.sum(), rel=0.15)
    assert float((one.tissues - other.tissues).abs().mean()) > 0.01


def test_t1_of_patients_and_of_other_splits_are_left_out(tmp_path, caplog):
    image, mask = tmp_path / "t1.nii.gz", tmp_path / "mask.nii.gz"
    for path in (image, mask):
        write_volume(path, np.ones((4, 4, 4), np.float32), np.eye(4))

    def row(subject, **more):
        return ScanRecord(subject=subject, image=image, modality="T1w", **more)

    rows = (row("a"), row("b", split="test"), row("c", pathology="ms"), row("d", split="train", pathology="healthy"))
    rows = (*rows, replace(row("e"), modality="mprage"), replace(row("f"), modality="T2w"), row("g", lesion=mask))
    Manifest(rows).write(tmp_path / "t1.tsv")
    found = ANATOMY_SOURCES.get("t1")().files(tmp_path / "t1.tsv")
    assert [file.name for file in found] == ["subaT1w", "subdT1w", "subemprage"]
    for line in ('1 in the split "test" (sub-b_T1w)', "1 of patients (sub-c_T1w)", "1 with annotated lesions"):
        assert line in caplog.text
    assert "1 of a contrast other than T1w (sub-f_T2w)" in caplog.text
    assert "2 T1 scans without a word on health taken as healthy" in caplog.text


def test_brain_mask_and_space_of_a_table_of_t1_are_used(tmp_path, monkeypatch):
    image, mask = tmp_path / "t1.nii.gz", tmp_path / "mask.nii.gz"
    write_volume(image, np.random.default_rng(0).random((8, 8, 8)).astype(np.float32), np.diag([20.0, 20, 20, 1]))
    write_volume(mask, np.pad(np.ones((4, 4, 4), np.uint8), 2), np.diag([20.0, 20, 20, 1]))
    table = tmp_path / "t1.tsv"
    row = ScanRecord("a", image, "T1w", brain_mask=mask, space="MNI152NLin2009aSym")
    Manifest((row, replace(row, subject="b", brain_mask=None, space="native"))).write(table)
    given = []

    def run(self, volume, *, brain_mask=None, space="native"):
        given.append((None if brain_mask is None else int(brain_mask.sum()), space))
        raise DataError("seen")

    monkeypatch.setattr("halebrain.simulation.anatomy_t1.Preprocessor.run", run)
    source = ANATOMY_SOURCES.get("t1")()
    with_mask, without = source.files(table)
    for file in (with_mask, without):
        with pytest.raises(DataError, match="seen"):
            source.read(file, shape=SHAPE, spacing_mm=SPACING)
    assert given == [(64, "MNI152NLin2009aSym"), (None, "native")]
    # Another mask is another anatomy, as what is kept was made with it.
    before = with_mask.fingerprint()
    write_volume(mask, np.ones((8, 8, 8), np.uint8), np.diag([20.0, 20, 20, 1]))
    assert len({before, with_mask.fingerprint(), without.fingerprint()}) == 3


def test_a_name_that_states_several_contrasts_is_no_anatomy(tmp_path, caplog):
    names = ("p1_T1w", "p2", "p3_T1_to_T2", "sub-04_space-T1w_FLAIR", "p5_FLAIR_space-T1w", "p6_T1_FLAIR", "p7_T1_T2")
    for name in names:
        (tmp_path / f"{name}.nii.gz").touch()
    found = ANATOMY_SOURCES.get("t1")().files(tmp_path)
    assert [file.name for file in found] == ["p1T1w", "p2", "p3T1toT2"]
    assert "4 images are left out: of a contrast other than T1w (first p5_FLAIR_space-T1w.nii.gz)" in caplog.text


def test_a_dicom_series_is_an_anatomy_like_any_other_scan(tmp_path, monkeypatch):
    for name in ("one", "two"):
        Maker(np.zeros((4, 4, 3), np.uint16)).write(tmp_path / "t1" / name)
    tissues = template_tissues(SHAPE, SPACING)
    monkeypatch.setattr(ANATOMY_SOURCES.get("t1"), "read", lambda *_, **__: tissues)
    names = gather("t1", tmp_path / "t1", tmp_path / "kept")
    assert [name[:-9] for name in names] == ["t1-one", "t1-two"]
    assert gather("t1", tmp_path / "t1", tmp_path / "kept") == names


def test_a_t1_that_was_not_fetched_and_other_images_are_named(tmp_path, caplog):
    for name in ("sub-1_T1w.nii", "sub-1_bold.nii"):
        (tmp_path / name).touch()
    (tmp_path / "sub-2_T1w.nii").symlink_to("../.git/annex/objects/x")
    (tmp_path / "dataset_description.json").write_text("{}")
    source = ANATOMY_SOURCES.get("t1")()
    assert [file.name for file in source.files(bids_manifest(tmp_path))] == ["sub1T1w"]
    with pytest.raises(UsageError, match="who is healthy"):
        source.files(tmp_path)
    assert "sub-2_T1w: left out" in caplog.text
    assert "1 image is left out: with a suffix that is not processed (sub-1_bold.nii)" in caplog.text


@pytest.mark.slow
def test_a_cohort_made_of_anatomies_goes_on_where_it_stopped(tmp_path):
    output = tmp_path / "cohort"
    template_labels(tmp_path / "maps")
    where = {"shape": grid_shape(SPACING), "spacing_mm": SPACING}
    names = gather_anatomies("labels", tmp_path / "maps", output / ANATOMIES, **where)
    config = CohortConfig(
        healthy=3, patients=0, modalities=("T1w",), spacing_mm=SPACING, anatomies=names, template_share=0.3
    )
    generate_cohort(output, config)
    description = json.loads((output / "dataset_description.json").read_text())
    assert "template and 1 other brain, whose tissue maps" in description["Description"]
    assert "no person" not in description["Description"]
    assert "License" not in description  # not ours to give
    drawn = [
        SubjectParams.model_validate_json((output / f"sub-healthy00{n}" / "parameters.json").read_text()).anatomy.base
        for n in (1, 2, 3)
    ]
    assert set(drawn) <= {None, *names}
    assert names[0] in drawn
    assert gather_anatomies("labels", tmp_path / "maps", output / ANATOMIES, **where) == names
    generate_cohort(output, config)
    assert "anatomies" not in CohortConfig().model_dump()
