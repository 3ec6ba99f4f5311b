import numpy as np
import pytest

from halebrain.core.errors import DataError
from halebrain.preprocessing.intensity import scale_intensity


def test_percentiles_inside_the_brain_become_0_and_1():
    image = np.arange(1000, dtype=np.float32).reshape(10, 10, 10)
    mask = np.zeros(image.shape, bool)
    mask[:5] = True
    scaled, span = scale_intensity(image, mask, low_percentile=1, high_percentile=99)
    assert (span.low, span.high) == pytest.approx((4.99, 494.01))
    assert scaled.min() == 0
    assert scaled.max() == 1
    assert not scaled[~mask].any()
    inner = mask & (image > span.low) & (image < span.high)
    np.testing.assert_allclose(scaled[inner] * (span.high - span.low) + span.low, image[inner], rtol=1e-4)


@pytest.mark.parametrize(("gain", "offset"), [(3.0, 0.0), (0.01, -7.0)])
def test_gain_and_offset_of_the_scanner_do_not_matter(rng, gain, offset):
    image = rng.gamma(2.0, 50.0, (12, 12, 12)).astype(np.float32)
    mask = np.ones(image.shape, bool)
    plain, _ = scale_intensity(image, mask, low_percentile=1, high_percentile=99)
    other, _ = scale_intensity(image * gain + offset, mask, low_percentile=1, high_percentile=99)
    np.testing.assert_allclose(other, plain, atol=1e-4)


def test_a_constant_brain_is_refused():
    with pytest.raises(DataError, match="must vary"):
        scale_intensity(np.ones((9, 9, 9), np.float32), np.ones((9, 9, 9), bool), low_percentile=1, high_percentile=99)
