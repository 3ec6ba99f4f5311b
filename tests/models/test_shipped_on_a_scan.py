"""The model that comes with the package finds what it should in a virtual patient of a seed that it never met.

One patient with multiple sclerosis (7.3 ml), scanned with each contrast, and the true healthy image of the same scan.
A floor and a ceiling hold what is measured with a margin: they catch a broken path, not a slightly worse model.
"""

from functools import cache

import numpy as np
import pytest

from halebrain.evaluation.curve import Curve
from halebrain.inference.predictor import Predictor
from halebrain.inference.scans import ScanInput
from halebrain.io.volume import read_mask
from halebrain.models import store
from halebrain.simulation.config import CohortConfig
from halebrain.simulation.generate import generate_cohort
from halebrain.workflows.detect import describe_scan
from halebrain.workflows.detector import find_anomalies, load_detector
from halebrain.workflows.settings import DetectSettings

pytestmark = [
    # Six detections at full size, half a minute.
    pytest.mark.slow,
    pytest.mark.skipif(not list(store.bundled_folder().glob("*.zip")), reason="this tree has no model"),
]

LEAST_AUPRC = {"FLAIR": 0.38, "T2w": 0.42, "T1w": 0.33}
"""Measured: 0.472, 0.515 and 0.423."""
MOST_ML = {"FLAIR": 8.0, "T2w": 3.0, "T1w": 9.0}
"""False-positive volume in the healthy image. Measured: 4.0, 0.6 and 4.3."""


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """The scans of the patient by contrast."""
    asked = CohortConfig(healthy=0, patients=1, pathologies=("ms",), seed=77, prefix="unseen")
    return {record.modality: record for record in generate_cohort(tmp_path_factory.mktemp("virtual") / "set", asked)}


@pytest.fixture(scope="module")
def detector():
    return load_detector(DetectSettings(brain=None, device="cpu"))


@pytest.fixture(scope="module")
def detected(patient, detector):
    """Detect with the default threshold in the scan of a contrast, or in its healthy image; each once."""

    @cache
    def detect(contrast, kind):
        record = patient[contrast]
        scan = ScanInput(getattr(record, kind), record.scan_id, record.brain_mask, record.space, contrast)
        found = find_anomalies(detector, scan, describe_scan(detector, scan))
        return found.volume, found

    return detect


@pytest.mark.parametrize("contrast", sorted(LEAST_AUPRC))
def test_a_patient_is_found_and_the_healthy_image_is_mostly_left_alone(patient, detected, contrast):
    volume, found = detected(contrast, "image")
    lesion = read_mask(patient[contrast].lesion, volume)
    region = found.result.brain_mask | lesion
    assert Curve.of(found.result.score[region], lesion[region]).average_precision >= LEAST_AUPRC[contrast]
    assert (found.mask & lesion).any()
    _, healthy = detected(contrast, "healthy")
    assert float(healthy.mask.sum()) * float(np.prod(volume.spacing_mm)) / 1000 <= MOST_ML[contrast]


def test_the_batch_size_moves_no_score_by_more_than_is_promised(detector, detected):
    """The documents promise 0.00001; convolutions over other batches round otherwise in their last bits (2e-7)."""
    _, found = detected("T1w", "image")
    other = Predictor(detector.predictor.bundle, batch_size=7).predict_working(found.scan, "T1w")
    for name in ("score", "probability", "residual", "reconstruction"):
        np.testing.assert_allclose(getattr(other, name), getattr(found.maps, name), atol=1e-5, rtol=0, err_msg=name)
