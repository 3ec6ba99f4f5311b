import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from halebrain.core.types import Volume
from halebrain.preprocessing.geometry import apply_affine
from halebrain.preprocessing.registration import register_to_template
from halebrain.preprocessing.template import load_template


def moved(degrees, shift_mm, scale=1.0, *, inverted=False):
    """Return the template lying elsewhere in space, its mask, and the matrix that put it there."""
    template, mask = load_template(2)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * scale
    matrix[:3, 3] = shift_mm
    data = np.where(mask, (template.data.max() - template.data) if inverted else template.data, 0)
    return Volume(data.astype(np.float32), matrix @ template.affine), mask, matrix


def target_error_mm(found, expected):
    template, mask = load_template(2)
    points = apply_affine(template.affine, np.argwhere(mask)[::50].astype(float))
    return np.linalg.norm(apply_affine(found, points) - apply_affine(expected, points), axis=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("degrees", "shift_mm", "scale"),
    [((0, 0, 0), (0, 0, 0), 1.0), ((12, -6, 8), (15, -30, 20), 1.0), ((-8, 5, -10), (-60, 40, 90), 0.92)],
)
def test_a_known_movement_is_found(degrees, shift_mm, scale):
    volume, mask, matrix = moved(degrees, shift_mm, scale)
    result = register_to_template(volume, mask)
    assert not result.failed
    assert np.median(target_error_mm(result.template_to_native, matrix)) < 1.0
    assert target_error_mm(result.template_to_native, matrix).max() < 3.0
    assert result.mask_dice > 0.95
    assert result.scale == pytest.approx(scale**3, rel=0.06)


@pytest.mark.slow
def test_another_contrast_is_registered_as_well():
    volume, mask, matrix = moved((10, 4, -6), (8, 12, -15), inverted=True)
    result = register_to_template(volume, mask)
    assert not result.failed
    assert np.median(target_error_mm(result.template_to_native, matrix)) < 1.5


@pytest.mark.slow
def test_the_same_scan_gives_the_same_matrix():
    volume, mask, _ = moved((4, -3, 7), (5, 5, 5))
    first, second = register_to_template(volume, mask), register_to_template(volume, mask)
    np.testing.assert_array_equal(first.template_to_native, second.template_to_native)


@pytest.mark.slow
def test_half_a_brain_is_said_to_fail():
    volume, mask, _ = moved((0, 0, 0), (0, 0, 0))
    half = mask.copy()
    half[:, :, half.shape[2] // 3 :] = False
    result = register_to_template(Volume(np.where(half, volume.data, 0).astype(np.float32), volume.affine), half)
    assert result.failed
