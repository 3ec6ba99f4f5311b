"""`halebrain models second-look`: what a detector doubts is filled; its scores, masks and thresholds stay."""

import numpy as np
import pytest

from halebrain.inference.predictor import Predictor
from halebrain.inference.scans import score_scan
from halebrain.io.manifest import Manifest
from halebrain.models.bundle import save_bundle
from halebrain.models.store import load_model

UNET = "{channels: [8, 8], blocks_per_level: 1, patch: 4, norm_groups: 4, attention_head_channels: 0}"
TINY = (
    *("--set", "data.preprocessing={shape: [32, 32, 24], spacing_mm: 6.0, registration: none, bias_correction: none}"),
    *("--set", "loop={steps: 2, batch_size: 2, validate_every: 2, validation_batches: 1, checkpoint_every: 2}"),
    *("--no-progress", "--device", "cpu"),
)
ROWS = [("h1", "FLAIR", "train", "healthy"), ("h2", "FLAIR", "val", "healthy"), ("p2", "FLAIR", "test", "ms")]


@pytest.fixture
def inpainter(command, small_cohort, tmp_path):
    """A tiny model of the reconstructor `inpainting`, and the table that it learned from."""
    manifest = small_cohort(ROWS)
    own = ("--set", "reconstructor.name=inpainting", "--set", f"reconstructor.settings={{unet: {UNET}}}")
    code, said = command("train", "reconstructor", "-o", tmp_path / "inpainting", "--manifest", manifest, *TINY, *own)
    assert code == 0, said.err
    return tmp_path / "inpainting" / "model", manifest


@pytest.mark.slow
def test_scores_stay_to_the_bit_and_the_scan_is_kept_where_nothing_is_doubted(
    command, small_model, inpainter, tmp_path
):
    filler, manifest = inpainter
    out = tmp_path / "both"
    code, said = command("models", "second-look", small_model, "--filler", filler, "-o", out, "--doubt", 0.5)
    assert code == 0, said.err
    before, after = load_model(small_model), load_model(out)
    assert after.calibration == before.calibration
    assert set(after.seen_subjects("train_subjects")) == {"learned", "h1"}
    record = next(iter(Manifest.read(manifest).split("test")))
    one, two = (score_scan(Predictor(model), record).maps for model in (before, after))
    np.testing.assert_array_equal(one.score, two.score)
    np.testing.assert_array_equal(one.reconstruction, two.first_reconstruction)
    scan = score_scan(Predictor(after), record).scan
    doubted = two.probability >= 0.5
    assert 0 < doubted.sum() < scan.brain_mask.sum()
    changed = two.reconstruction != scan.image
    assert changed[doubted & scan.brain_mask].any()
    far = ~np.isin(np.arange(scan.image.shape[2]), np.flatnonzero(doubted.any(axis=(0, 1))))
    scored = Predictor(after).scored(scan)
    assert not changed[..., far][scored[..., far]].any()
    method = Predictor(after).method()
    assert (method.reconstructor, method.second_pass.doubt, method.second_pass.grow) == ("ddpm", 0.5, 2)
    # An evaluation tells both passes.
    code, said = command(
        *("evaluate", out, "--manifest", manifest, "-o", tmp_path / "evaluation", "--reconstruction"),
        *("--threshold", "0.5", "--no-progress"),
    )
    assert code == 0, said.err
    rows = (tmp_path / "evaluation" / "scans.tsv").read_text()
    assert "\tresidual\t" in rows
    assert "\tsecond look\t" in rows
    assert "second look" in (tmp_path / "evaluation" / "reconstruction.tsv").read_text()


@pytest.mark.slow
def test_what_cannot_take_a_second_look_is_refused(command, small_model, inpainter, tmp_path):
    filler, _ = inpainter
    out = tmp_path / "both"
    assert command("models", "second-look", small_model, "--filler", filler, "-o", out)[0] == 0
    other = load_model(filler)
    other.config.preprocessing["spacing_mm"] = 5.0
    save_bundle(other, tmp_path / "other", card="other")
    for model, inpainting, told in (
        (filler, filler, "a reconstructor without a segmenter"),
        (out, filler, "a model with a second look"),
        (small_model, small_model, "an inpainter that is ddpm"),
        (small_model, tmp_path / "other", "the preprocessing of the detector"),
    ):
        code, said = command("models", "second-look", model, "--filler", inpainting, "-o", tmp_path / "new")
        assert code == 65
        assert told in said.err
        assert said.err.count("\n") == 1
        assert not (tmp_path / "new").exists()
