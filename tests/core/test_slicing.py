"""Axial slices of a volume and back."""

import numpy as np
import pytest

from halebrain.core.slicing import slices_of, volume_of


@pytest.mark.parametrize("kind", [np.float32, np.bool_])
def test_a_slice_is_the_plane_at_its_height_and_the_way_back_is_exact(kind):
    volume = np.random.default_rng(0).integers(0, 2, (4, 5, 3)).astype(kind)
    slices = slices_of(volume)
    assert tuple(slices.shape) == (3, 1, 4, 5)
    for height in range(3):
        np.testing.assert_array_equal(slices[height, 0].numpy(), volume[:, :, height])
    back = volume_of(slices)
    assert back.dtype == volume.dtype
    np.testing.assert_array_equal(back, volume)


def test_slices_share_no_memory_with_their_volume():
    volume = np.ones((2, 2, 2), np.float32)
    slices_of(volume).zero_()
    assert volume.all()
