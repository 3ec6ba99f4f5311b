"""`halebrain adapt`: a few annotated scans make a model better on their disease, and what it refuses."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch

from halebrain.adaptation import run as run_module
from halebrain.io.manifest import Manifest
from halebrain.models.bundle import load_bundle, save_bundle
from halebrain.models.bundle_files import About, store_about

# Lightning warns about the machine, not about the run.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning.*")

ROWS = [
    ("a", "FLAIR", "train", "wmh"),
    ("b", "FLAIR", None, "wmh"),
    ("c", "FLAIR", "val", "wmh"),
    ("h", "FLAIR", "train", "healthy"),
    ("t", "FLAIR", "test", "wmh"),
    ("k", "FLAIR", "test", "healthy"),
    ("s", "FLAIR", "train", "stroke"),
]
QUICK = (
    "tuning.loop={steps: 30, batch_size: 8, lr: 1.0e-2, precision: 32-true, validate_every: 15, validation_batches: 1,"
    " checkpoint_every: 15, ema_decay: 0.5, keep: last}"
)
FEW = ("--set", QUICK, "--set", "tuning.synthetic_slices=32", "--set", "steps_one_subject=15")
SETTINGS = (*FEW, "--set", "rehearsal.patients=0")


@pytest.fixture
def adapt(command, small_model, tmp_path):
    def call(manifest, *more, output="out", settings=SETTINGS):
        return command(
            "adapt", "--model", small_model, "--manifest", manifest, "-o", tmp_path / output,
            "--no-progress", "--device", "cpu", *settings, *more,
        )  # fmt: skip

    return call


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--pathology", "wmh", "--pathology", "strok"), "--pathology must be in the manifest, got 'strok'"),
        (("--pathology", "WMH"), "--pathology must be in the manifest, got 'WMH'"),
        (("--modality", "FLAIR", "--modality", "T1w"), "--modality must be in the manifest, got 'T1w'"),
    ],
)
def test_a_word_that_no_scan_has_is_refused(adapt, small_cohort, words, said):
    code, printed = adapt(small_cohort(ROWS), *words)
    assert (code, said in printed.err) == (2, True), printed.err


@pytest.mark.slow
def test_it_gets_better_on_what_was_annotated(adapt, command, small_cohort, small_model, tmp_path):
    manifest = small_cohort(ROWS)
    code, said = adapt(manifest, "--pathology", "wmh")
    assert code == 0, said.err
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} == {"model", "left_out", "held_out", "adaptation.md", "adaptation.json"}
    found = json.loads((out / "adaptation.json").read_text())
    changes = {(c["scans"], c["group"], c["metric"]): c for c in found["changes"]}
    for scans, count in (("left out", 3), ("held out", 1)):
        change = changes[scans, "wmh FLAIR", "auprc"]
        assert change["after"]["n_scans"] == count
        assert change["after"]["mean"] > change["before"]["mean"] + 0.05
        assert change["difference"]["mean"] == pytest.approx(change["after"]["mean"] - change["before"]["mean"])
    assert changes["left out", "wmh FLAIR", "auprc"]["difference"]["low"] is not None
    assert ("held out", "stroke FLAIR", "auprc") in changes
    false = changes["held out", "healthy FLAIR", "false_positive_volume"]
    assert (false["after"]["n_scans"], false["before"]["n_scans"]) == (1, 0)  # the small model has no threshold
    # Every run needs the only healthy subject, so that nothing is known of it as one that was left out.
    assert ("left out", "healthy FLAIR", "false_positive_volume") not in changes
    assert "h: every run learned from these healthy scans" in said.err
    assert found["choice"]["tried"] == [0, 15, 30]
    assert "no number of steps" not in said.err

    old, new = load_bundle(small_model), load_bundle(out / "model")
    for name, value in old.reconstructor.state_dict().items():
        assert torch.equal(value, new.reconstructor.state_dict()[name]), name
    assert any(not torch.equal(v, new.segmenter.state_dict()[k]) for k, v in old.segmenter.state_dict().items())
    assert new.training["stage2"] == old.training["stage2"]
    told = new.training["adaptation"]
    assert told["adapted_from"] == old.sha256
    assert told["train_subjects"] == ["a", "b", "c", "h"]
    assert set(told["scans"]) == {f"sub-{s}_FLAIR" for s in "abch"}
    assert told["scans"]["sub-h_FLAIR"]["lesion_sha256"] is None
    card = (out / "model" / "card.md").read_text()
    assert old.sha256[:12] in card
    assert told["scans"]["sub-a_FLAIR"]["image_sha256"][:12] in card
    assert new.calibration["thresholds"]["dice"]["split"] == "leave-one-out"
    assert new.calibration["thresholds"]["dice"]["n_scans"] == 3
    # What was learned from can no more be evaluated on, and what was held out can.
    evaluate = ("evaluate", out / "model", "--manifest", manifest, "--no-progress", "-o", tmp_path / "eval", "--split")
    assert command(*evaluate, "train")[0] == 65
    code, said = command(*evaluate, "test")
    assert code == 0, said.err


@pytest.mark.slow
def test_asked_again_it_is_there_and_another_is_refused(adapt, small_cohort, tmp_path):
    manifest = small_cohort(ROWS[:3])
    assert adapt(manifest)[0] == 0
    model = tmp_path / "out" / "model"
    stamp, weights = model.stat().st_mtime_ns, (model / "model.safetensors").read_bytes()
    assert adapt(manifest)[0] == 0
    assert model.stat().st_mtime_ns == stamp
    code, said = adapt(manifest, "--seed", 7)
    assert code == 73
    assert "another adaptation" in said.err
    assert adapt(manifest, "--seed", 7, "--overwrite")[0] == 0
    assert (model / "model.safetensors").read_bytes() != weights
    assert adapt(manifest, output="again")[0] == 0
    assert (tmp_path / "again" / "model" / "model.safetensors").read_bytes() == weights


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_model(adapt, small_cohort, tmp_path, monkeypatch):
    from halebrain.adaptation import run

    manifest = small_cohort(ROWS[:3])
    real, calls = run.score_versions, []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(run, "score_versions", stopping)
    assert adapt(manifest)[0] == 130
    assert not (tmp_path / "out" / "model").exists()
    assert adapt(manifest)[0] == 0
    assert adapt(manifest, output="whole")[0] == 0
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("out", "whole")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_one_scan_takes_few_steps_unseen(adapt, small_cohort, small_model, tmp_path):
    about = About(licence="CC-BY-4.0", citation="A and B, 2025.", authors=("A", "B"), data="Ten brains.")
    store_about(small_model, about, card="# card")
    code, said = adapt(small_cohort(ROWS[:1]))
    assert code == 0, said.err
    assert "one annotated subject" in said.err
    new, old = load_bundle(tmp_path / "out" / "model"), load_bundle(small_model)
    assert new.training["adaptation"]["steps"] == 15
    assert new.calibration == old.calibration
    assert new.about == about
    assert "the effect is unknown" in (tmp_path / "out" / "adaptation.md").read_text()
    # It stays nearer to the model than one that was tried on others.
    assert (
        adapt(tmp_path / "cohort" / "manifest.tsv", "--set", "original_weight_one_subject=0.5", output="half")[0] == 0
    )
    half, plain = load_bundle(tmp_path / "half" / "model").segmenter.state_dict(), old.segmenter.state_dict()
    moved = {name: weight - plain[name] for name, weight in new.segmenter.state_dict().items()}
    for name, way in moved.items():
        torch.testing.assert_close(way, (half[name] - plain[name]) / 2, atol=1e-6, rtol=1e-4)
    assert max(float(way.abs().max()) for way in moved.values()) > 1e-4
    assert not (tmp_path / "out" / "left_out").exists()


@pytest.mark.slow
def test_virtual_patients_of_what_the_model_learned_are_shown_again(adapt, small_cohort, tmp_path, monkeypatch):
    from halebrain.adaptation import run
    from halebrain.training import adaptation

    found = {}
    real = adaptation.adaptation_stage

    def watched(segmenter, stores, *more):
        found.update(stores)
        return real(segmenter, stores, *more)

    monkeypatch.setattr(adaptation, "adaptation_stage", watched)
    more = ("--set", "rehearsal={patients: 1, healthy: 1, slices: 5}")
    code, said = adapt(small_cohort(ROWS[:1]), settings=(*FEW, *more))
    assert code == 0, said.err
    model = tmp_path / "out" / "model"
    assert load_bundle(model).training["adaptation"]["rehearsed"] == ["ms"]
    assert load_bundle(model).training["adaptation"]["train_subjects"] == ["a"]
    assert "Virtual patients in rehearsal: ms" in (model / "card.md").read_text()
    assert found["rehearsed"].subjects == ("healthy001", "ms001")
    assert [len(pairs) for pairs in found["rehearsed"].pairs] == [3, 3]
    # Without it, the model is another one, and nobody is rehearsed.
    assert adapt(small_cohort(ROWS[:1], "again"), output="plain")[0] == 0
    plain = load_bundle(tmp_path / "plain" / "model")
    assert plain.training["adaptation"]["rehearsed"] == []
    assert plain.sha256 != load_bundle(model).sha256
    assert run.rehearsed_diseases(plain) == ("ms",)


@pytest.mark.slow
def test_a_contrast_without_virtual_scans_is_said(adapt, small_cohort, tmp_path):
    code, said = adapt(small_cohort([("a", "PDw", "train", "wmh")]), settings=FEW)
    assert code == 0, said.err
    assert "no virtual scans of PDw: adaptation runs without rehearsal" in said.err
    assert load_bundle(tmp_path / "out" / "model").training["adaptation"]["rehearsed"] == []


@pytest.mark.slow
def test_a_mask_that_is_empty_is_left_out_and_said(adapt, small_cohort, tmp_path):
    manifest = small_cohort(ROWS[:3])
    rows = Manifest.read(manifest).records
    empty(rows[1].lesion)
    code, said = adapt(manifest)
    assert code == 0, said.err
    assert "sub-b_FLAIR: no lesion on the working grid" in said.err
    assert load_bundle(tmp_path / "out" / "model").training["adaptation"]["train_subjects"] == ["a", "c"]
    for row in rows:
        empty(row.lesion)
    code, said = adapt(manifest, output="none")
    assert code == 65
    assert "empty masks" in said.err


def empty(path):
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), path)


@pytest.mark.parametrize(
    ("rows", "more", "said"),
    [
        ([("h", "FLAIR", "train", "healthy")], (), "healthy scans only"),
        ([("t", "FLAIR", "test", "wmh")], (), "no scan with a lesion mask for training"),
        (
            [("a", "FLAIR", "train", "wmh"), ("t", "FLAIR", "test", "tumour")],
            ("--pathology", "tumour"),
            "no scan with a lesion mask",
        ),
    ],
)
def test_without_annotated_scans_it_says_what_is_lacking(adapt, small_cohort, tmp_path, rows, more, said):
    code, found = adapt(small_cohort(rows), *more)
    assert code == 66
    assert said in found.err
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_segmenter_is_refused(adapt, command, small_cohort, small_model, tmp_path):
    old = load_bundle(small_model)
    config = old.config.model_copy(update={"segmenter": None, "kind": "reconstructor"})
    save_bundle(replace(old, segmenter=None, config=config), tmp_path / "stage1", card="stage 1")
    manifest = small_cohort(ROWS[:1])
    code, said = command("adapt", "-m", tmp_path / "stage1", "--manifest", manifest, "-o", tmp_path / "out")
    assert code == 65
    assert "with a segmenter" in said.err


def test_overwriting_never_takes_another_model(command, small_cohort, small_model, tmp_path):
    (tmp_path / "out").mkdir()
    small_model.rename(tmp_path / "out" / "model")
    manifest, model = small_cohort(ROWS[:1]), tmp_path / "out" / "model"
    code, said = command("adapt", "-m", model, "--manifest", manifest, "-o", tmp_path / "out", "--overwrite")
    assert code == 65
    assert "only replaces an adaptation" in said.err
    assert load_bundle(model).segmenter is not None


def test_settings_that_cannot_be_are_refused(adapt, small_cohort):
    manifest = small_cohort(ROWS[:1])
    code, said = adapt(manifest, settings=("--set", "tuning.loop.keep=best"))
    assert code == 78
    code, said = adapt(manifest, settings=("--set", "stepz=3"))
    assert code == 78
    assert "stepz" in said.err


def prepared(folder):
    """Return the content of the prepared scans, and what is stated of them but for the time that it took."""
    found = {path.name: path.read_bytes() for path in folder.rglob("*.nii.gz")}
    for path in folder.rglob("*_desc-preproc_*.json"):
        stated = json.loads(path.read_text())
        del stated["costs"]
        found[path.name] = stated
    return found


@pytest.fixture
def begun(adapt, monkeypatch, tmp_path):
    """Adapt up to the training, which is left out; return exit code and what was said."""

    class _PreparedError(Exception):
        pass

    def stop(*_):
        raise _PreparedError

    def call(manifest, output):
        try:
            return adapt(manifest, output=output)
        except _PreparedError:
            return 0, None

    monkeypatch.setattr(run_module, "without_empty", stop)
    return call


@pytest.mark.slow
def test_parts_prepare_what_one_run_does_and_the_rest_is_named(adapt, begun, small_cohort, tmp_path, capsys):
    manifest = small_cohort(ROWS)
    scan = manifest.parent / "sub-h_FLAIR.nii.gz"
    good = scan.read_bytes()
    scan.write_bytes(b"none")
    lefts, codes = [], []
    for part in (0, 1, 2):
        code, said = adapt(manifest, "--part-id", part, "--num-parts", 3, "--json", output="parts")
        codes.append(code)
        document = json.loads(said.out)
        lefts.append(document["left"])
        failed = [one["scan"] for one in document["failed"]]
        assert failed == (["sub-h_FLAIR"] if code else [])
        assert ("sub-h_FLAIR" in said.err) == bool(code)
    assert sorted(codes) == [0, 0, 3]
    (table,) = (tmp_path / "parts" / "work").glob("failed-*.tsv")
    assert "sub-h_FLAIR" in table.read_text()
    failing = codes.index(3)
    assert lefts[2] == (0 if failing == 2 else 1)
    scan.write_bytes(good)
    code, said = adapt(manifest, "--part-id", failing, "--num-parts", 3, output="parts")
    assert code == 0, said.err
    assert "run the command without --part-id and --num-parts" in said.err
    assert not table.exists()
    code, said = adapt(manifest, "--part-id", failing, "--num-parts", 3, "--json", output="parts")
    assert json.loads(said.out)["kept"] == json.loads(said.out)["prepared"] > 0

    (lost,) = (tmp_path / "parts").rglob("sub-c_*_desc-preproc_*.json")
    lost.unlink()
    capsys.readouterr()
    begun(manifest, "parts")
    assert "1 of 7 scans left to prepare: sub-c_FLAIR" in capsys.readouterr().err
    begun(manifest, "whole")
    assert "left to prepare" not in capsys.readouterr().err
    assert prepared(tmp_path / "parts") == prepared(tmp_path / "whole")
    assert len(prepared(tmp_path / "whole")) > 4 * 7


def test_a_part_of_an_adaptation_replaces_nothing(adapt, small_cohort):
    code, said = adapt(small_cohort(ROWS), "--part-id", 0, "--num-parts", 2, "--overwrite")
    assert code == 2
    assert "--overwrite and --num-parts exclude each other" in said.err
