"""Distances by hand on anisotropic grids, and their symmetries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halebrain.evaluation.case import surface_distances_mm
from halebrain.evaluation.metrics import METRICS

HD95, NSD = METRICS.get("hd95"), METRICS.get("surface_dice_2mm")


def voxel(*place, shape=(12, 12, 12)):
    mask = np.zeros(shape, bool)
    mask[place] = True
    return mask


@pytest.mark.parametrize(
    ("other", "expected"), [((5, 5, 5), 0.0), ((7, 5, 5), 2.0), ((5, 7, 5), 4.0), ((5, 5, 7), 6.0), ((8, 7, 5), 5.0)]
)
def test_two_voxels_by_hand(make_case, other, expected):
    case = make_case(voxel(5, 5, 5), mask=voxel(*other), spacing_mm=(1.0, 2.0, 3.0))
    assert HD95(case) == pytest.approx(expected)
    assert NSD(case) == float(expected <= 2.0)


def test_a_cube_grown_by_one_voxel(make_case):
    small, large = np.zeros((12, 12, 12), bool), np.zeros((12, 12, 12), bool)
    small[4:8, 4:8, 4:8] = True
    large[3:9, 3:9, 3:9] = True
    assert HD95(make_case(small, mask=large, spacing_mm=(2.5, 2.5, 2.5))) == pytest.approx(2.5 * np.sqrt(2), abs=1.0)
    forth, back = surface_distances_mm(large, small, (1.0, 1.0, 1.0))
    assert (forth.max(), back.max()) == (pytest.approx(np.sqrt(3)), 1.0)
    assert NSD(make_case(small, mask=large)) == 1.0


def test_only_the_surface_counts():
    solid = np.zeros((12, 12, 12), bool)
    solid[2:10, 2:10, 2:10] = True
    forth, _ = surface_distances_mm(solid, voxel(5, 5, 5), (1.0, 1.0, 1.0))
    assert len(forth) == 8**3 - 6**3


def test_a_mask_at_the_border_of_the_image_has_a_surface_there(make_case):
    full = np.ones((9, 9, 9), bool)
    assert HD95(make_case(full, mask=full)) == 0


def test_a_lesion_missed_altogether_counts_as_the_diagonal(make_case):
    case = make_case(voxel(5, 5, 5), mask=np.zeros((12, 12, 12), bool), spacing_mm=(1.0, 2.0, 3.0))
    assert HD95(case) == pytest.approx(np.linalg.norm([12, 24, 36]))
    assert NSD(case) == 0.0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), flips=st.tuples(*[st.sampled_from([-1, 1])] * 3))
def test_symmetry_and_flips(make_case, seed, flips):
    rng = np.random.default_rng(seed)
    one, two = (rng.random((7, 8, 6)) < 0.2 for _ in range(2))
    one[3, 3, 3] = two[2, 2, 2] = True
    spacing = (1.0, 1.5, 3.0)
    turn = tuple(slice(None, None, f) for f in flips)
    for metric in (HD95, NSD):
        value = metric(make_case(one, mask=two, spacing_mm=spacing))
        assert value == pytest.approx(metric(make_case(two, mask=one, spacing_mm=spacing)))
        assert value == pytest.approx(metric(make_case(one[turn], mask=two[turn], spacing_mm=spacing)))
