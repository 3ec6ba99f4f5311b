"""Reconstruction quality by hand."""

import numpy as np
import pytest

from halebrain.evaluation.reconstruction_quality import reconstruction_quality


def case(reconstructed: float):
    healthy = np.full((1, 1, 4), 0.4, dtype=np.float32)
    image, reconstruction = healthy.copy(), healthy.copy()
    image[..., 0] = 0.8
    reconstruction[..., 0] = reconstructed
    reconstruction[..., 1:3] = 0.5
    lesion = np.array([[[True, False, False, False]]])
    brain = np.array([[[True, True, True, False]]])
    return reconstruction_quality(image, reconstruction, healthy, lesion, brain)


@pytest.mark.parametrize(("reconstructed", "removed"), [(0.4, 1.0), (0.8, 0.0), (0.5, 0.75), (1.0, -0.5)])
def test_by_hand(reconstructed: float, removed: float) -> None:
    quality = case(reconstructed)
    assert quality.lesion_removed == pytest.approx(removed, abs=1e-5)
    assert quality.error_inside == pytest.approx(abs(reconstructed - 0.4), abs=1e-6)
    assert quality.error_outside == pytest.approx(0.1, abs=1e-6)
    assert quality.residual_contrast == pytest.approx(abs(0.8 - reconstructed) / 0.1, abs=1e-4)


def test_a_lesion_is_needed() -> None:
    ones, none = np.ones((2, 2, 2), dtype=np.float32), np.zeros((2, 2, 2), dtype=bool)
    with pytest.raises(ValueError, match="needs a lesion"):
        reconstruction_quality(ones, ones, ones, none, ~none)
