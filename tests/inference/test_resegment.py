"""A scan scored anew by another segmenter is scored as by a model with that segmenter."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from halebrain.inference.predictor import Predictor
from halebrain.inference.resegment import Resegmenter
from halebrain.io.manifest import Manifest
from halebrain.io.volume import read_volume
from halebrain.models.bundle import load_bundle
from halebrain.models.segmentation import Segmenter


@pytest.mark.parametrize(("across_mm", "mirror", "lowest_z_mm"), [(0.0, False, None), (12.0, True, -10.0)])
def test_scores_are_those_of_the_whole_model(small_model, small_cohort, across_mm, mirror, lowest_z_mm):
    bundle = load_bundle(small_model)
    post = {**bundle.config.postprocessing, "through_plane_mm": across_mm, "mirror": mirror}
    post["lowest_z_mm"] = lowest_z_mm
    post["through_plane_by_contrast"] = {"FLAIR": (across_mm, 2 * across_mm)}
    bundle = replace(bundle, config=bundle.config.model_copy(update={"postprocessing": post}))
    record = Manifest.read(small_cohort([("a", "FLAIR", "val", "ms")])).records[0]
    predictor = Resegmenter(bundle, seed=4, draws=2)
    scan = predictor.preprocessor.run(read_volume(record.image), space=record.space)
    known = predictor.know(scan, "FLAIR")
    assert len(known.reconstructions) == 2
    plain = Predictor(bundle, seed=4, draws=2).predict_working(scan, "FLAIR").score
    np.testing.assert_array_equal(known.score, plain)
    assert bundle.segmenter is not None
    np.testing.assert_allclose(predictor.score(known, bundle.segmenter), plain, atol=1e-6)

    torch.manual_seed(9)
    other = Segmenter(bundle.segmenter.config).eval().requires_grad_(False)
    score = predictor.score(known, other)
    assert np.abs(score - plain).max() > 0.01
    expected = Predictor(replace(bundle, segmenter=other), seed=4, draws=2).predict_working(scan, "FLAIR").score
    # A fresh network computes in another order of memory: the sixth decimal moves.
    np.testing.assert_allclose(score, expected, atol=5e-5)
