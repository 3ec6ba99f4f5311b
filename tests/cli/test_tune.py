"""`halebrain tune`: what it writes, what it refuses, and that the stored model is a new one."""

import json
from dataclasses import replace

import pytest

from halebrain.io.manifest import Manifest
from halebrain.models.bundle import load_bundle, save_bundle
from halebrain.models.bundle_files import CARD, checked_files
from halebrain.workflows.selection import chosen_scans

ROWS = [
    ("a", "FLAIR", "val", "ms"),
    ("b", "FLAIR", "val", "stroke"),
    ("c", "FLAIR", "val", "healthy"),
    ("d", "FLAIR", "test", "ms"),
]


@pytest.fixture
def tuned(command, small_model, small_cohort, tmp_path):
    manifest = small_cohort(ROWS)

    def call(*more):
        return command("tune", small_model, "--manifest", manifest, "-o", tmp_path / "out", "--no-progress", *more)

    return call


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--pathology", "ms", "--pathology", "strok"), "--pathology must be in the manifest, got 'strok'"),
        (("--modality", "FLAIR", "--modality", "T3w"), "--modality must be in the manifest, got 'T3w'"),
    ],
)
def test_a_word_that_no_scan_has_is_refused_beside_one_that_has(tuned, command, small_model, tmp_path, words, said):
    code, printed = tuned(*words)
    assert (code, said in printed.err) == (2, True)
    manifest = tmp_path / "cohort" / "manifest.tsv"
    for name in ("evaluate", "calibrate"):
        more = ("-o", tmp_path / "out") if name == "evaluate" else ()
        code, printed = command(name, small_model, "--manifest", manifest, *more, *words, "--no-progress")
        assert (code, said in printed.err) == (2, True), name


def test_a_disease_may_be_absent_from_a_split(small_cohort):
    table = Manifest.read(small_cohort([*ROWS, ("e", "FLAIR", "test", "tumour")]))
    asked = {"modalities": ("flair",), "pathologies": ("ms", "tumour")}
    assert [row.subject for row in chosen_scans(table.split("val"), table=table, **asked)] == ["a"]
    asked = {"modalities": (), "pathologies": ()}
    assert len(chosen_scans(table, table=table, **asked)) == 5


@pytest.mark.slow
def test_seen_and_unseen_are_swept_apart(tuned, tmp_path, small_model):
    before = load_bundle(small_model)
    code, said = tuned()
    assert code == 0, said.err
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"sweep.tsv", "sweep.json", "sweep.png"}
    found = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert len(found["points"]) == 22
    assert found["provenance"]["subjects"] == ["a", "b"]
    assert [line.split("\t")[0] for line in said.out.splitlines()[:2]] == ["seen", "unseen"]
    assert load_bundle(small_model).sha256 == before.sha256


@pytest.mark.slow
def test_storing_writes_a_new_model_without_thresholds(tuned, tmp_path, small_model, command):
    code, said = tuned("--store", "unseen", "--output-model", tmp_path / "new")
    assert code == 0, said.err
    old, new = load_bundle(small_model), load_bundle(tmp_path / "new")
    chosen = json.loads((tmp_path / "out" / "sweep.json").read_text())["chosen"]["unseen"]
    assert new.config.postprocessing == {**old.config.postprocessing, "residual_weight": chosen}
    assert new.calibration == {}
    assert old.calibration != {}
    assert new.sha256 != old.sha256
    # Whoever took part is known to evaluation from now on, as are those of an earlier tuning.
    assert set(new.seen_subjects("val_subjects")) == {"a", "b", "earlier"}
    assert "best for unseen pathologies on 2 validation subjects" in checked_files(tmp_path / "new")[0][CARD].decode()
    code, said = command(
        "evaluate", tmp_path / "new", "--manifest", tmp_path / "cohort" / "manifest.tsv", "--split", "val",
        "--threshold", 0.5, "-o", tmp_path / "eval", "--no-progress",
    )  # fmt: skip
    assert code == 65
    assert "must not be evaluated, got a (tuning)" in said.err


def test_what_an_adaptation_learned_is_seen(command, small_model, small_cohort, tmp_path):
    old = load_bundle(small_model)
    told = {**old.training["stage2"], "pathologies": ["stroke"], "train_subjects": ["x"]}
    adapted = replace(old, training={**old.training, "adaptation": told})
    save_bundle(adapted, tmp_path / "adapted", card="adapted")
    manifest = small_cohort(ROWS)
    code, said = command("tune", tmp_path / "adapted", "--manifest", manifest, "-o", tmp_path / "out", "--no-progress")
    assert code == 0, said.err
    assert {line.split("\t")[0] for line in said.out.splitlines() if "weight=" in line} == {"seen"}


def test_refusals(command, tuned, tmp_path, small_model, small_cohort):
    assert tuned("--store", "seen")[0] == 2
    untuned = small_cohort([("d", "FLAIR", "test", "ms")], "untuned")
    code, said = command("tune", small_model, "--manifest", untuned, "-o", tmp_path / "none")
    assert code == 66
    assert 'split "val"' in said.err
    code, said = tuned("--pathology", "ms", "--store", "unseen", "--output-model", tmp_path / "new")
    assert code == 66
    assert not (tmp_path / "new").exists()
    code, said = tuned("--store", "seen", "--output-model", small_model)
    assert code == 73
    learned = small_cohort([("learned", "FLAIR", "val", "ms")], "other")
    code, said = command("tune", small_model, "--manifest", learned, "-o", tmp_path / "none")
    assert code == 65
    assert "must not be tuned on, got learned" in said.err
    assert not (tmp_path / "none").exists()
