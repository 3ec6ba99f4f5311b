"""What a page shows: axes turned to right, front, up; cropped; means that keep the mean; places that lead back."""

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from halebrain.report.display import COARSE_MM, FINE_MM, display_grid, mean_weights


def test_means_over_voxels() -> None:
    np.testing.assert_allclose(mean_weights(4, 2), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    np.testing.assert_allclose(mean_weights(3, 1.5), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]], atol=1e-6)
    np.testing.assert_allclose(mean_weights(3, 2), [[0.5, 0.5, 0], [0, 0, 1]])  # the last one is partly outside
    np.testing.assert_allclose(mean_weights(5, 1), np.eye(5))


@pytest.mark.parametrize("factor", [1.0, 1.3, 2.0, 3.7])
def test_the_mean_of_a_constant_is_the_constant(factor: float) -> None:
    np.testing.assert_allclose(mean_weights(17, factor).sum(axis=1), 1, rtol=1e-6)


ORIENTATIONS = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)]
]


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_a_place_is_shown_where_it_is_in_the_world(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    spacing = np.array([1.0, 1.5, 3.0])  # of the axes to the right, front and up
    affine = np.eye(4)
    affine[:3, :3] = 0
    shape = [0, 0, 0]
    for native, world in enumerate(order):
        affine[world, native] = signs[native] * spacing[world]
        shape[native] = (30, 26, 14)[world]
    affine[:3, 3] = (3, -7, 11)
    brain = np.zeros(shape, dtype=bool)
    brain[4:10, 5:9, 4:12] = True
    mark = np.zeros(shape, dtype=np.float32)
    voxel = (6, 7, 5)
    mark[voxel] = 1
    grid = display_grid(affine, brain)
    shown = grid.show(mark, FINE_MM)
    place = np.argwhere(shown == 1)
    assert len(place) == 1
    middle = (place[0] + 0.5) * grid.spacing_mm(FINE_MM)
    np.testing.assert_allclose((grid.to_voxel @ [*middle, 1])[:3], voxel, atol=1e-9)
    assert grid.spacing_mm(FINE_MM) == tuple(spacing)
    # Right, front and up grow with the axes of the page.
    for axis in range(3):
        step = np.zeros(3)
        step[axis] = 1
        world = (affine @ grid.to_voxel)[:3, :3] @ step
        assert int(np.argmax(np.abs(world))) == axis
        assert world[axis] == pytest.approx(1)
    assert grid.oblique_degrees == pytest.approx(0)
    inside = np.zeros(shape, dtype=np.float32)
    inside[grid.native_box] = 1
    assert grid.crop(inside).all()
    assert inside.sum() == grid.crop(inside).size


def test_fine_scans_are_shown_at_a_millimetre_and_keep_their_mean() -> None:
    affine = np.diag([0.5, 0.5, 2.0, 1.0])
    data = np.random.default_rng(0).random((64, 60, 20)).astype(np.float32)
    grid = display_grid(affine, np.ones(data.shape, dtype=bool))
    shown = grid.show(data, FINE_MM)
    assert shown.shape == (32, 30, 20)
    assert grid.size_mm == (32, 30, 40)
    np.testing.assert_allclose(shown, data.reshape(32, 2, 30, 2, 20).mean(axis=(1, 3)), rtol=1e-5)
    assert grid.show(data, COARSE_MM).shape == (16, 15, 20)


def test_the_box_keeps_a_margin_and_stays_inside() -> None:
    brain = np.zeros((100, 100, 100), dtype=bool)
    brain[2:50, 40:60, 30:99] = True
    grid = display_grid(np.eye(4), brain)
    assert grid.start == (0, 32, 22)
    assert grid.stop == (58, 68, 100)


def test_a_huge_box_is_shown_coarser() -> None:
    grid = display_grid(np.eye(4), np.ones((240, 240, 240), dtype=bool))
    assert grid.fine_mm == pytest.approx((240**3 * 3.57 / 13.2e6) ** (1 / 3))
    assert grid.coarse_mm == 2 * grid.fine_mm
    assert grid.show(np.zeros((240, 240, 240), dtype=np.float32), grid.fine_mm).size < 3.9e6


def test_a_large_brain_is_shown_at_a_millimetre() -> None:
    i, j, k = np.ogrid[-1:1:150j, -1:1:190j, -1:1:160j]
    head = np.zeros((180, 220, 190), dtype=bool)
    head[15:165, 15:205, 15:175] = i**2 + j**2 + k**2 < 0.87  # 1.9 litres
    grid = display_grid(np.eye(4), head)
    assert 0.3 < grid.brain_share < 0.4
    assert (grid.fine_mm, grid.coarse_mm) == (FINE_MM, COARSE_MM)


def test_without_a_brain_everything_is_shown() -> None:
    grid = display_grid(np.eye(4), np.zeros((9, 8, 7), dtype=bool))
    assert (grid.start, grid.stop) == ((0, 0, 0), (9, 8, 7))


def test_an_oblique_scan_says_by_how_much() -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("x", 12, degrees=True).as_matrix()
    assert display_grid(affine, np.ones((8, 8, 8), dtype=bool)).oblique_degrees == pytest.approx(12)
