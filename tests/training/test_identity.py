"""A run is the same run only where everything that it depends on is the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lightning_fabric import Fabric

from halebrain import training
from halebrain.core.errors import DataError
from halebrain.core.types import TEMPLATE_SPACE
from halebrain.data.slices import DataConfig, SliceStore
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.models.bundle import Bundle
from halebrain.preprocessing.pipeline import PreprocessingConfig
from halebrain.training.joint import JointTraining, train_joint
from halebrain.training.reconstructor import ReconstructorTraining, train_reconstructor
from halebrain.training.runs import (
    content_of,
    read_training_manifest,
    run_identity,
    tell_of_other_contrasts,
    tell_of_people_learned_from,
)
from halebrain.training.segmenter import _is_annotated
from halebrain.training.segmenter_config import SegmenterTraining


def manifest(*subjects):
    return Manifest(tuple(ScanRecord(subject=s, image=Path(s), modality="T1w", split="train") for s in subjects))


BASE = ReconstructorTraining()
USUAL = BASE.data


def test_the_place_of_files_does_not_matter():
    moved = BASE.model_copy(update={"data": BASE.data.model_copy(update={"manifest": Path("x"), "cache": Path("y")})})
    assert run_identity(BASE, manifest("a", "b")) == run_identity(moved, manifest("b", "a"))


@pytest.mark.parametrize("changed", ["seed", "data", "modalities", "model"])
def test_everything_else_does(changed):
    config, rows, others = BASE, manifest("a"), ["hash"]
    if changed == "seed":
        config = BASE.model_copy(update={"seed": 5})
    elif changed == "data":
        rows = manifest("a", "b")
    elif changed == "modalities":
        config = BASE.model_copy(update={"data": BASE.data.model_copy(update={"modalities": ("T1w",)})})
    else:
        others = ["other"]
    assert run_identity(config, rows, *others) != run_identity(BASE, manifest("a"), "hash")


def test_which_scans_count_several_times_matters_and_only_then(tmp_path):
    tables = {}
    for subject in ("a", "b"):
        scan = tmp_path / f"{subject}.nii.gz"
        scan.touch()
        tables[subject] = tmp_path / f"{subject}.tsv"
        Manifest((ScanRecord(subject=subject, image=scan, modality="T1w", split="train"),)).write(tables[subject])

    def identity(further, weight):
        data = DataConfig(more_manifests=(tables[further],), oversample_factor=weight)
        return run_identity(BASE.model_copy(update={"data": data}), manifest("a", "b"))

    assert identity("a", 1) == identity("b", 1) == run_identity(BASE, manifest("a", "b"))
    assert len({identity("a", 1), identity("a", 3), identity("b", 3), identity("b", (3,))}) == 4


def test_a_healthy_scan_with_an_empty_mask_is_not_annotated():
    record = ScanRecord(subject="a", image=Path("a"), modality="T1w", lesion=Path("m"), pathology="healthy")
    assert not _is_annotated(record, None)


def test_tables_are_read_as_one_and_a_scan_in_both_is_refused(tmp_path):
    for name, subject in (("a", "one"), ("b", "two")):
        scan = tmp_path / f"{subject}.nii.gz"
        scan.touch()
        record = ScanRecord(subject=subject, image=scan, modality="T1w", split="train", pathology="healthy")
        Manifest((record,), source=tmp_path).write(tmp_path / f"{name}.tsv")
    first, second = tmp_path / "a.tsv", tmp_path / "b.tsv"
    both = read_training_manifest(DataConfig(manifest=first, more_manifests=(second,)))
    assert both.subjects() == ["one", "two"]
    with pytest.raises(DataError):
        read_training_manifest(DataConfig(manifest=first, more_manifests=(first,)))


def test_what_files_hold_counts_and_not_where_they_lie(tmp_path):
    rows = []
    for place, held in (("here", "one"), ("there", "one"), ("changed", "other")):
        (tmp_path / place).mkdir()
        for name in ("a", "b"):
            (tmp_path / place / name).write_text(f"{held} {name}")
        files = [tmp_path / place / name for name in ("a", "b")]
        rows.append([ScanRecord(subject=path.name, image=path, modality="T1w", lesion=files[0]) for path in files])
    here, there, changed = (content_of(Manifest(tuple(own)), USUAL) for own in rows)
    assert here == there == content_of(Manifest(tuple(reversed(rows[0]))), USUAL)
    assert here != changed
    assert content_of(Manifest(tuple(replace(row, space=TEMPLATE_SPACE) for row in rows[0])), USUAL) != here


def test_what_the_file_of_an_atlas_holds_counts(tmp_path):
    # The slices that are learned from depend on it, so a resumed run would go on with others.
    scan, atlas = tmp_path / "a", tmp_path / "atlas"
    rows = Manifest((ScanRecord(subject="a", image=scan, modality="T1w"),))
    found = set()
    for held in ("one", "one", "other"):
        scan.write_text("scan")
        atlas.write_text(held)
        found.add(content_of(rows, DataConfig(preprocessing=PreprocessingConfig(template=atlas))))
    assert len(found | {content_of(rows, USUAL)}) == 3


def model(**training: list[str]) -> Bundle:
    return Bundle(None, None, None, {"stage1": training}, {})  # type: ignore[arg-type]


def test_people_who_validate_what_they_trained_are_told(caplog):
    rows = Manifest(tuple(replace(row, split="val") for row in manifest("a", "b")) + manifest("c").records)
    begun = model(train_subjects=["b", "c"], val_subjects=["a"])
    tell_of_people_learned_from(rows, (None, begun))
    assert "1 subject of the split val trained a model that this training begins with" in caplog.text
    assert caplog.text.rstrip().endswith("too low (b)")
    caplog.clear()
    tell_of_people_learned_from(manifest("b", "c"), (begun,))
    assert not caplog.text


@pytest.mark.parametrize(("learned", "told"), [(["FLAIR"], True), (["t1"], False), (["random"], False), ([], False)])
def test_a_reconstructor_of_another_contrast_is_told(caplog, learned, told):
    tell_of_other_contrasts(manifest("a"), learned)
    assert ("the reconstructor learned from FLAIR and not from T1w" in caplog.text) == told == bool(caplog.text)


@pytest.mark.parametrize("kind", ["reconstructor", "joint"])
def test_a_run_depends_on_what_its_anomalies_are_made_of(tmp_path, monkeypatch, kind):
    class StoppedError(Exception):
        pass

    def stop(*_, others, **__):
        raise StoppedError(list(others))

    module = {"reconstructor": training.reconstructor, "joint": training.joint}[kind]
    monkeypatch.setattr(module, "read_training_manifest", lambda _: manifest("a"))
    slices = np.zeros((1, 32, 32), dtype=np.float16)
    store = SliceStore((slices,), (slices.astype(np.uint8),), manifest("a").records)
    monkeypatch.setattr(module, "open_slices", lambda *_: {"train": store, "val": store})
    monkeypatch.setattr(module, "run_stage", stop)
    unet = {"channels": [8], "blocks_per_level": 1, "norm_groups": 4, "attention_head_channels": 0}
    spec = {"name": "restoration", "settings": {"unet": unet}}
    anomaly = {"name": "cohort", "settings": {"masks": str(tmp_path)}}
    if kind == "joint":
        config, train = JointTraining(reconstructor=spec, anomaly=anomaly, segmenter={"channels": [8]}), train_joint
    else:
        config, train = ReconstructorTraining(reconstructor=spec, anomaly=anomaly), train_reconstructor
    found = []
    for held in ("one", "other"):
        (tmp_path / "mask.nii").write_text(held)
        with pytest.raises(StoppedError) as stopped:
            train(config, tmp_path, fabric=Fabric(accelerator="cpu", devices=1))
        found.append(stopped.value.args[0])
    assert found[0] != found[1]


def test_what_is_not_learned_from_is_told(tmp_path, caplog):
    table = tmp_path / "table.tsv"
    for name in ("a", "b"):
        (tmp_path / name).touch()
    records = [ScanRecord("a", tmp_path / "a", "T1w", split="train", pathology="ms")]
    records += [ScanRecord("b", tmp_path / "b", "T1w", pathology="ms")]
    Manifest(tuple(records)).write(table)
    read_training_manifest(
        SegmenterTraining(regime="weak", data={"manifest": table, "pathologies": ["ms", "strok"]}).data
    )
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "no scan has strok of data.pathologies; check the spelling" in said
    assert "1 scan is in no split and left out" in said
    caplog.clear()
    Manifest(tuple(records[:1])).write(table)
    read_training_manifest(SegmenterTraining(regime="weak", data={"manifest": table, "pathologies": ["ms"]}).data)
    assert not caplog.records
