"""Fusion of the scores of several contrasts."""

import inspect
from dataclasses import fields

import numpy as np
import pytest
from scipy.special import expit, logit

import halebrain
from halebrain.benchmarking.config import MatrixConfig
from halebrain.core.errors import ConfigError
from halebrain.inference.fusion import DEFAULT, FUSIONS, WEIGHTS, ContrastScore, fuse_contrasts, fused_value
from halebrain.workflows.settings import BidsSettings, CalibrateSettings, EvaluateSettings, ExamSettings

SEVERAL = [("T1w", 0.09), ("T2w", 0.17), ("FLAIR", 0.15), ("PDw", 0.2)]


def scores_of(rng, *contrasts, shape=(8, 9, 7)):
    """Return random scores of contrasts, each in its own part of the brain."""
    healthy = dict(SEVERAL)
    return [
        ContrastScore(name, rng.random(shape).astype(np.float32), rng.random(shape) < 0.8, healthy[name])
        for name in contrasts
    ]


@pytest.mark.parametrize("name", FUSIONS.names())
def test_one_contrast_alone_keeps_its_score_to_the_bit(name, rng):
    (alone,) = scores_of(rng, "FLAIR")
    assert fuse_contrasts([alone], name) is alone.score


@pytest.mark.parametrize("name", FUSIONS.names())
@pytest.mark.parametrize("count", [2, 3, 4])
def test_fused_scores_are_scores_and_end_where_no_scan_shows_brain(name, count, rng):
    scores = scores_of(rng, *(contrast for contrast, _ in SEVERAL[:count]))
    fused = fuse_contrasts(scores, name)
    anywhere = np.any([score.inside for score in scores], axis=0)
    assert fused.dtype == np.float32
    assert fused.shape == anywhere.shape
    assert fused.min() >= 0
    assert fused.max() <= 1
    assert np.array_equal(fused > 0, anywhere)


@pytest.mark.parametrize("name", FUSIONS.names())
def test_the_order_of_the_scans_does_not_matter(name, rng):
    scores = scores_of(rng, "T1w", "T2w", "FLAIR")
    assert np.allclose(fuse_contrasts(scores, name), fuse_contrasts(scores[::-1], name), atol=1e-6)


@pytest.mark.parametrize("name", FUSIONS.names())
def test_more_evidence_of_one_contrast_never_lowers_the_score(name, rng):
    scores = scores_of(rng, "T1w", "FLAIR")
    before = fuse_contrasts(scores, name)
    raised = ContrastScore("T1w", np.minimum(scores[0].score + 0.1, 1), scores[0].inside, scores[0].healthy)
    assert (fuse_contrasts([raised, scores[1]], name) >= before - 1e-6).all()


@pytest.mark.parametrize("name", FUSIONS.names())
def test_what_a_scan_does_not_show_has_no_say(name, rng):
    scores = scores_of(rng, "T1w", "FLAIR")
    changed = np.where(scores[0].inside, scores[0].score, rng.random(scores[0].score.shape)).astype(np.float32)
    other = ContrastScore("T1w", changed, scores[0].inside, scores[0].healthy)
    assert np.array_equal(fuse_contrasts(scores, name), fuse_contrasts([other, scores[1]], name))


def test_healthy_scores_meet_on_the_common_scale():
    """A T1 and a FLAIR that both show just their healthy score give the anchor, whatever their scales."""
    anchor = expit(np.mean([logit(0.09), logit(0.15)]))
    values = [("T1w", 0.09, 0.09), ("FLAIR", 0.15, 0.15)]
    for name in ("log_odds", "weighted_odds", "root_odds"):
        assert fused_value(values, name) == pytest.approx(anchor, abs=1e-6)
    assert fused_value(values, "mean") == pytest.approx(0.12, abs=1e-6)


def test_values_computed_by_hand():
    scores = [("T1w", 0.9, 0.5), ("FLAIR", 0.5, 0.5)]
    # Log-odds ln 9 and 0: their mean gives odds of 3. Odds 9 and 1 with weights 1 and 3: (9 + 3) / 4 = 3, too.
    assert fused_value(scores, "log_odds") == pytest.approx(0.75, abs=1e-6)
    assert WEIGHTS["FLAIR"] / WEIGHTS["T1w"] == 3
    assert fused_value(scores, "weighted_odds") == pytest.approx(0.75, abs=1e-6)
    # Roots 3 and 1 with the same weights: (3 + 3) / 4 = 1.5, and odds of 1.5².
    assert fused_value(scores, "root_odds") == pytest.approx(2.25 / 3.25, abs=1e-6)
    assert fused_value(scores, "mean") == pytest.approx(0.7, abs=1e-6)


def test_a_lesion_that_flair_alone_shows_is_kept_by_weighted_odds():
    values = [("T1w", 0.01, 0.09), ("T2w", 0.02, 0.17), ("FLAIR", 0.6, 0.15)]
    anchor = fused_value([(name, healthy, healthy) for name, _, healthy in values], "weighted_odds")
    assert fused_value(values, "weighted_odds") > anchor > fused_value(values, "log_odds")
    assert fused_value(values, "weighted_odds") > fused_value(values, "root_odds") > fused_value(values, "log_odds")


def test_an_unknown_fusion_is_refused_with_the_nearest_name(rng):
    with pytest.raises(ConfigError, match="did you mean 'log_odds'"):
        fuse_contrasts(scores_of(rng, "T1w"), "logodds")


def test_every_way_in_has_the_same_default_fusion():
    settings = (ExamSettings, BidsSettings, EvaluateSettings, CalibrateSettings)
    stated = {owner.__name__: field.default for owner in settings for field in fields(owner) if field.name == "fusion"}
    stated["matrix"] = MatrixConfig.model_fields["fusion"].default
    stated |= {
        function.__name__: inspect.signature(function).parameters["fusion"].default
        for function in (halebrain.detect_exam, halebrain.evaluate, halebrain.calibrate)
    }
    assert len(stated) == 8
    assert set(stated.values()) == {DEFAULT}
