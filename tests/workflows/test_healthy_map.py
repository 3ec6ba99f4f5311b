"""Fitting a healthy map: from healthy scans, five people a contrast, and without a person for this person's scans."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from halebrain.core.errors import ConfigError, DataError, MissingInputError, UsageError
from halebrain.core.failures import Failures
from halebrain.core.modality import ScanContrast
from halebrain.inference.predictor import Predictor
from halebrain.io.manifest import Manifest
from halebrain.models.bundle import Bundle, load_bundle, save_bundle
from halebrain.models.bundle_files import CARD, About, checked_files, store_about
from halebrain.models.healthy_map import SIGMA_VOXELS, STRIDE_VOXELS
from halebrain.preprocessing.prepared import open_record
from halebrain.thresholds.percentile import working_scan_score
from halebrain.workflows.calibrate import run_calibration
from halebrain.workflows.detector import judge_quality
from halebrain.workflows.healthy_map import HealthyFit, fit_healthy_map
from halebrain.workflows.selection import tell_without_evidence
from halebrain.workflows.settings import CalibrateSettings

HEALTHY = [(f"h{n}", "FLAIR", "val", "healthy") for n in range(6)]
NORMALISED = CalibrateSettings(device="cpu", healthy_map=True, residual="normalised")


def fit_on(model: Path, rows: Manifest, said: list[str] | None = None) -> HealthyFit:
    predictor = Predictor(load_bundle(model))
    return fit_healthy_map(predictor, rows, failures=Failures(None), notify=(said if said is not None else []).append)


def with_residual(bundle: Bundle, kind: str, **changes) -> Bundle:
    post = {**bundle.config.postprocessing, "residual": kind, **changes}
    return replace(bundle, config=bundle.config.model_copy(update={"postprocessing": post}))


@pytest.fixture
def rows(small_cohort) -> Manifest:
    return Manifest.read(small_cohort(HEALTHY))


def test_the_map_is_that_of_the_residuals(small_model, rows) -> None:
    fit = fit_on(small_model, rows)
    predictor, residuals, masks = Predictor(load_bundle(small_model)), [], []
    for record in rows:
        _, scan = open_record(predictor.preprocessor, record)
        residuals.append(scan.image - predictor.reconstruct_levels(scan)["ensemble"])
        masks.append(predictor.scored(scan))
    one = fit.fitted.of_contrast("FLAIR")
    nodes = (slice(None, None, STRIDE_VOXELS),) * 3
    np.testing.assert_allclose(one.coverage[nodes], np.mean(masks, axis=0)[nodes], atol=1e-6)
    assert one.scans.subjects == tuple(f"h{n}" for n in range(6))
    assert one.scans.sigma_voxels == SIGMA_VOXELS
    # Deep inside, the mean over a neighbourhood lies between the least and the greatest value in it.
    held = np.ma.masked_array(residuals, ~np.array(masks))
    inner = np.isfinite(one.std)
    assert (one.mean[inner] >= held.min() - 1e-3).all()
    assert (one.mean[inner] <= held.max() + 1e-3).all()
    weight = one.coverage * (one.coverage > 0)
    assert (one.mean * weight).sum() / weight.sum() == pytest.approx(held.mean(), abs=0.01)


def test_a_person_is_left_out_as_if_never_there(small_model, rows) -> None:
    fit = fit_on(small_model, rows)
    fewer = fit_on(small_model, rows.select(lambda record: record.subject != "h2"))
    left, others = fit.without("h2").of_contrast("FLAIR"), fewer.fitted.of_contrast("FLAIR")
    np.testing.assert_allclose(left.mean, others.mean, atol=6e-4)  # one step of the file
    known = np.isfinite(others.std)
    np.testing.assert_array_equal(np.isfinite(left.std), known)
    np.testing.assert_allclose(left.std[known], others.std[known], atol=6e-4)
    np.testing.assert_allclose(left.coverage, others.coverage, atol=1e-6)
    assert left.scans.subjects == others.scans.subjects
    assert left.scans.n_scans == 5
    assert fit.without("nobody").contrasts == fit.fitted.contrasts


@pytest.mark.slow
def test_thresholds_come_from_scans_that_are_compared_with_other_people(small_model, rows) -> None:
    fit = fit_on(small_model, rows)
    run_calibration(small_model, rows, NORMALISED, failures=Failures(None))
    calibrated = load_bundle(small_model)
    predictor = Predictor(calibrated)

    def score(one: Predictor, place: int) -> float:
        record = rows.records[place]
        _, scan = open_record(one.preprocessor, record)
        return working_scan_score(one.predict_working(scan, "FLAIR").score, scan.brain_mask, scan.grid.spacing_mm)

    apart = [score(predictor.with_healthy_map(fit.without(f"h{n}")), n) for n in range(6)]
    stored = calibrated.calibration["healthy_scores"]["FLAIR"]
    np.testing.assert_allclose(stored, sorted(apart), atol=1e-5)
    # Within the map that it helped to make, each scan would look more normal.
    assert np.mean([score(predictor, n) for n in range(6)]) < np.mean(apart)


def test_a_contrast_of_fewer_than_five_people_has_no_map(small_model, small_cohort) -> None:
    few = [(f"h{n}", "T1w", "val", "healthy") for n in range(4)]
    manifest = Manifest.read(small_cohort([*HEALTHY, *few, ("p1", "T1w", "val", "ms")]))
    said: list[str] = []
    assert sorted(fit_on(small_model, manifest, said).fitted.contrasts) == ["FLAIR"]
    assert said == ["no healthy map of T1w: scans of 4 healthy people, fewer than 5"]
    with pytest.raises(MissingInputError, match=r"of 5 healthy people.*T1w: scans of 4 healthy people"):
        fit_on(small_model, manifest.of_contrasts(("T1w",)))


@pytest.mark.slow
def test_a_later_fit_keeps_the_contrasts_that_it_lacks(small_model, small_cohort) -> None:
    first = Manifest.read(small_cohort(HEALTHY))
    other = Manifest.read(small_cohort([(f"t{n}", "T2w", "val", "healthy") for n in range(5)], folder="second"))
    settings = CalibrateSettings(device="cpu", healthy_map=True)
    run_calibration(small_model, first, settings, failures=Failures(None))
    before = load_bundle(small_model).healthy_map
    run_calibration(small_model, other, settings, failures=Failures(None))
    bundle = load_bundle(small_model)
    assert bundle.healthy_map is not None
    assert before is not None
    np.testing.assert_array_equal(bundle.healthy_map.of_contrast("FLAIR").mean, before.of_contrast("FLAIR").mean)
    assert set(bundle.calibration_subjects()) == {*(f"h{n}" for n in range(6)), *(f"t{n}" for n in range(5))}
    # The residual was not changed, and nor was any score.
    assert bundle.config == load_bundle(small_model).config
    assert bundle.config.postprocessing["residual"] == "positive"


def test_a_normalised_residual_needs_a_map_and_a_known_contrast(small_model, rows) -> None:
    bundle = load_bundle(small_model)
    with pytest.raises(ConfigError, match=r"residual normalised_bright needs a healthy map.*--healthy-map"):
        Predictor(with_residual(bundle, "normalised_bright"))
    for kind, said in (("normalised", "needs a healthy map"), ("normalise", "did you mean 'normalised'")):
        settings = CalibrateSettings(device="cpu", residual=kind)
        with pytest.raises(ConfigError, match=said):
            run_calibration(small_model, rows, settings, failures=Failures(None))
    fitted = replace(with_residual(bundle, "normalised"), healthy_map=fit_on(small_model, rows).fitted)
    predictor = Predictor(fitted)
    _, scan = open_record(predictor.preprocessor, rows.records[0])
    for contrast in ("T2w", None):
        with pytest.raises(DataError, match=r"contrast that is in the model's healthy map"):
            predictor.predict_working(scan, contrast)
    coarse = replace(fitted, config=bundle.config.model_copy(update={"preprocessing": {"shape": [32, 32, 20]}}))
    with pytest.raises(DataError, match="must lie on the working grid"):
        Predictor(coarse)


def test_the_residual_is_the_z_score_of_its_difference(small_model, rows) -> None:
    bundle, healthy_map = load_bundle(small_model), fit_on(small_model, rows).fitted
    maps = {}
    for kind in ("normalised", "normalised_bright", "normalised_dark", "normalised_signed", "normalised_leaning"):
        predictor = Predictor(replace(with_residual(bundle, kind), healthy_map=healthy_map))
        _, scan = open_record(predictor.preprocessor, rows.records[0])
        found = predictor.predict_working(scan, "FLAIR")
        maps[kind] = found.residual
        alone = predictor.residual_alone(scan, found.reconstruction, "FLAIR", kind)
        np.testing.assert_allclose(alone, found.residual, atol=1e-6)
    one = healthy_map.of_contrast("FLAIR")
    z = (scan.image - found.reconstruction - one.mean) / (one.std + 0.02) * predictor.scored(scan)
    np.testing.assert_allclose(maps["normalised"], np.abs(z) / (1 + np.abs(z)), atol=1e-5)
    np.testing.assert_allclose(maps["normalised_bright"] + maps["normalised_dark"], maps["normalised"], atol=1e-6)
    np.testing.assert_array_equal(maps["normalised_signed"], maps["normalised_bright"])
    assert maps["normalised_dark"].any()
    leaning = np.maximum(z, 0) + np.maximum(-z, 0) / 2  # lesions are bright on FLAIR, few of them dark
    np.testing.assert_allclose(maps["normalised_leaning"], leaning / (1 + leaning), atol=1e-5)


def test_evidence_adds_to_the_log_odds_of_the_segmenter(small_model, rows) -> None:
    bundle, healthy_map = load_bundle(small_model), fit_on(small_model, rows).fitted
    fused = with_residual(bundle, "normalised_bright", fusion="log_odds", residual_weight=0.4)
    predictor = Predictor(replace(fused, healthy_map=healthy_map))
    _, scan = open_record(predictor.preprocessor, rows.records[0])
    found, inside = predictor.predict_working(scan, "FLAIR"), predictor.scored_region(scan)
    z = np.minimum(found.residual / (1 - found.residual), 6)[inside]
    assert z.max() > 1
    odds = found.probability[inside] / (1 - found.probability[inside]) * np.exp(0.4 * z)
    np.testing.assert_allclose(found.score[inside], odds / (1 + odds), atol=1e-5)
    assert not found.score[~inside].any()


def test_a_contrast_without_a_healthy_map_is_scored_by_the_segmenter_alone_and_flagged(small_model, rows) -> None:
    bundle, healthy_map = load_bundle(small_model), fit_on(small_model, rows).fitted
    fused = with_residual(bundle, "normalised_bright", fusion="log_odds", residual_weight=0.4)
    predictor = Predictor(replace(fused, healthy_map=healthy_map))
    _, scan = open_record(predictor.preprocessor, rows.records[0])
    for contrast, named in (("PDw", "PDw"), (None, "scans of unknown contrast")):
        found = predictor.predict_working(scan, contrast)
        assert not found.residual.any()
        np.testing.assert_allclose(
            found.score, np.where(predictor.scored_region(scan), found.probability, 0), atol=2e-5
        )
        flags = judge_quality(predictor, scan.qc, [], ScanContrast(contrast, None)).flags
        (said,) = (flag for flag in flags if flag.startswith("the segmenter alone scored this scan"))
        assert f"the model has no healthy map of {named}; the threshold was chosen on scores with the residual" in said
    flags = judge_quality(predictor, scan.qc, [], ScanContrast("FLAIR", None)).flags
    assert not any("segmenter alone" in flag for flag in flags)


def test_an_evaluation_says_which_scans_the_segmenter_scores_alone(small_model, rows) -> None:
    bundle, healthy_map = load_bundle(small_model), fit_on(small_model, rows).fitted
    fused = with_residual(bundle, "normalised_bright", fusion="log_odds", residual_weight=0.4)
    predictor = Predictor(replace(fused, healthy_map=healthy_map))
    said: list[str] = []
    tell_without_evidence(rows, predictor, said.append)
    assert said == []
    mixed = replace(rows, records=(replace(rows.records[0], modality="PDw"), *rows.records[1:]))
    tell_without_evidence(mixed, predictor, said.append)
    (line,) = said
    assert line.startswith("warning: the segmenter alone scores 1 scan, as the model has no healthy map of PDw;")


def test_evidence_needs_a_normalised_residual_and_a_segmenter(small_model, rows) -> None:
    settings = CalibrateSettings(device="cpu", residual="absolute", evidence=0.4)
    with pytest.raises(ConfigError, match="log_odds needs a normalised residual"):
        run_calibration(small_model, rows, settings, failures=Failures(None))
    fused = with_residual(load_bundle(small_model), "normalised", fusion="log_odds")
    alone = replace(fused, healthy_map=fit_on(small_model, rows).fitted, segmenter=None)
    with pytest.raises(ConfigError, match="log_odds needs a segmenter"):
        Predictor(alone)


def test_a_map_is_fitted_for_evidence_in_one_call(small_model, rows) -> None:
    settings = replace(NORMALISED, residual="normalised_leaning", evidence=0.25)
    run_calibration(small_model, rows, settings, failures=Failures(None))
    post = load_bundle(small_model).config.postprocessing
    assert (post["residual"], post["fusion"], post["residual_weight"]) == ("normalised_leaning", "log_odds", 0.25)
    method = Predictor(load_bundle(small_model)).method()
    assert (method.fusion, method.evidence) == ("log_odds", ("FLAIR",))


def test_a_plain_residual_ends_the_evidence_and_a_model_without_a_segmenter_has_none(small_model, rows) -> None:
    run_calibration(small_model, rows, replace(NORMALISED, evidence=0.25), failures=Failures(None))
    plain = CalibrateSettings(device="cpu", residual="absolute")
    run_calibration(small_model, rows, plain, failures=Failures(None))
    post = load_bundle(small_model).config.postprocessing
    assert (post["residual"], post["fusion"]) == ("absolute", "weighted_sum")
    whole = load_bundle(small_model)
    config = whole.config.model_copy(update={"kind": "reconstructor", "segmenter": None})
    alone = replace(whole, config=config, segmenter=None, calibration={})
    save_bundle(alone, small_model, card="alone", overwrite=True)
    with pytest.raises(UsageError, match="--evidence needs a model with a segmenter"):
        run_calibration(small_model, rows, replace(NORMALISED, evidence=0.25), failures=Failures(None))


def test_a_model_with_other_scores_keeps_no_figures_and_its_card_says_what_changed(small_model, rows) -> None:
    about = About(licence="CC0-1.0", citation="A.", authors=("Ada",), data="none", figures=("AUPRC 0.9",))
    store_about(small_model, about, card="of before")
    run_calibration(small_model, rows, CalibrateSettings(device="cpu", healthy_map=True), failures=Failures(None))
    assert load_bundle(small_model).about == about  # the residual, and so each score, is as before
    settings = CalibrateSettings(device="cpu", residual="normalised_leaning", evidence=0.25)
    run_calibration(small_model, rows, settings, failures=Failures(None))
    assert load_bundle(small_model).about == about.model_copy(update={"figures": ()})
    card = checked_files(small_model)[0][CARD].decode()
    assert "AUPRC 0.9" not in card
    assert "Residual weight 0.5, best for seen pathologies on 1 validation subject" in card
    assert "since another score was chosen it is 0.25" in card


def test_earlier_thresholds_cannot_stay_beside_other_scores(small_model, rows) -> None:
    for change in ({"name": "ours"}, {"add": True}):
        with pytest.raises(UsageError, match="no earlier threshold can stay"):
            run_calibration(small_model, rows, replace(NORMALISED, **change), failures=Failures(None))


def test_thresholds_on_the_scans_of_the_map_are_warned_of(small_model, rows) -> None:
    said: list[str] = []
    run_calibration(small_model, rows, NORMALISED, failures=Failures(None))
    again = CalibrateSettings(device="cpu", notify=said.append)
    run_calibration(small_model, rows, again, failures=Failures(None))
    assert any("6 people of these scans are in the model's healthy map" in line for line in said)


def test_a_training_whose_model_could_not_make_its_residual_is_refused(
    command, small_model, small_cohort, tmp_path
) -> None:
    manifest = small_cohort([("a", "FLAIR", "train", "healthy"), ("b", "FLAIR", "val", "healthy")])
    options = ("-c", "tiny", "--manifest", manifest, "-o", tmp_path / "run", "--no-progress")
    wanted = ("--set", "postprocessing.residual=normalised")
    code, said = command("train", "segmenter", *options, "--reconstructor", small_model, *wanted)
    assert code == 78, said.err
    assert "the residual normalised needs a healthy map, got a reconstructor without one" in said.err
    assert not (tmp_path / "run").exists()
