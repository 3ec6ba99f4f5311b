"""Names of regions: centres of well-known structures in template space, on both sides."""

import numpy as np
import pytest

from halebrain.inference.regions import STRUCTURES, near_ventricles, region_map, region_of
from halebrain.preprocessing.geometry import working_grid

PAIRED = [
    ((11, -18, 8), "thalamus"),
    ((11, 11, 9), "caudate nucleus"),
    ((15, -2, 22), "caudate nucleus"),
    ((24, 4, 2), "lentiform nucleus"),
    ((18, 0, 0), "lentiform nucleus"),
    ((25, -21, -10), "hippocampus and amygdala"),
    ((23, -1, -17), "hippocampus and amygdala"),
    ((35, 7, 3), "insula"),
    ((39, -6, 51), "precentral gyrus"),
    ((56, -16, 38), "postcentral gyrus"),
    ((5, 5, 61), "frontal cortex"),
    ((18, 35, 42), "frontal cortex"),
    ((4, 35, 14), "cingulate gyrus"),
    ((5, -15, 42), "cingulate gyrus"),
    ((5, -43, 25), "cingulate gyrus"),
    ((7, -56, 48), "parietal cortex"),
    ((44, -61, 36), "parietal cortex"),
    ((56, -34, 30), "parietal cortex"),
    ((53, -21, 7), "temporal cortex"),
    ((42, -19, 10), "temporal cortex"),
    ((40, 15, -20), "temporal cortex"),
    ((50, -28, -23), "temporal cortex"),
    ((31, -40, -20), "temporal cortex"),
    ((14, -99, 0), "occipital cortex"),
    ((7, -79, 6), "occipital cortex"),
    ((15, -68, -5), "occipital cortex"),
    ((36, -67, -29), "cerebellum"),
    ((23, -59, -22), "cerebellum"),
    ((26, -55, -48), "cerebellum"),
    ((26, 10, 32), "frontal white matter"),
    ((26, -20, 38), "parietal white matter"),
    ((30, -70, 4), "occipital white matter"),
    ((18, 28, 10), "periventricular frontal white matter"),
    ((10, -2, 22), "lateral ventricle"),
    ((9, 22, 6), "lateral ventricle"),
]
MEDIAN = [
    ((0, -26, -30), "brainstem (pons)"),
    ((5, -24, -11), "brainstem (midbrain)"),
    ((0, -40, -52), "brainstem (medulla)"),
    ((0, -15, 6), "third ventricle"),
    ((0, 28, 5), "corpus callosum"),
    ((2, 0, 26), "corpus callosum"),
    ((0, -38, 13), "corpus callosum"),
    ((2, -60, -25), "cerebellum, midline"),
]


@pytest.mark.parametrize("sign", [1, -1], ids=["right", "left"])
@pytest.mark.parametrize(("place", "name"), PAIRED)
def test_known_places_on_both_sides(place: tuple[float, float, float], name: str, sign: int) -> None:
    x, y, z = place
    side = "midline" if x < 4 else "right" if sign > 0 else "left"
    assert region_of(np.array([[sign * x, y, z]])) == f"{name}, {side}"


@pytest.mark.parametrize(("place", "name"), MEDIAN)
def test_known_places_in_the_middle(place: tuple[float, float, float], name: str) -> None:
    assert region_of(np.array([place])) == name


@pytest.mark.parametrize("place", [(80, 80, 80), (0, 200, 0), (-1e6, 0, 0)])
def test_what_lies_outside_is_said(place: tuple[float, float, float]) -> None:
    assert region_of(np.array([place])) == "outside the template's brain"


def test_an_ellipsoid_ends_at_its_radii() -> None:
    thalamus = next(s for s in STRUCTURES if s.name == "thalamus")
    x, y, z = thalamus.centre_mm
    assert thalamus.holds(x + thalamus.radii_mm[0] - 0.01, y, z)
    assert not thalamus.holds(x + thalamus.radii_mm[0] + 0.01, y, z)
    assert thalamus.holds(x, y, z - thalamus.radii_mm[2] + 0.01)
    assert not thalamus.holds(x, y, z - thalamus.radii_mm[2] - 0.01)


def test_a_piece_is_where_most_of_it_lies() -> None:
    thalamus, caudate, insula = (11.0, -18.0, 8.0), (11.0, 11.0, 9.0), (35.0, 7.0, 3.0)
    assert region_of(np.array([thalamus])) == "thalamus, right"
    assert region_of(np.array([thalamus] * 3 + [caudate])) == "thalamus, right"
    spread = np.array([thalamus] * 400 + [caudate] * 350 + [insula] * 350)
    assert region_of(spread) == "thalamus, right, and further"


def test_a_map_has_the_name_of_every_voxels_middle():
    to_template = np.array([[-1.0, 0, 0, 60], [0, 1, 0, -60], [0, 0, 1, -20], [0, 0, 0, 1]])
    codes, names = region_map(to_template, (12, 14, 6), (10.0, 8.0, 9.0))
    assert codes.shape == (12, 14, 6)
    assert list(names) == sorted(set(names))
    for i, j, k in ((0, 0, 0), (5, 6, 2), (11, 13, 5)):
        place = (60 - 10 * (i + 0.5), -60 + 8 * (j + 0.5), -20 + 9 * (k + 0.5))
        assert names[codes[i, j, k]] == region_of(np.array([place]))
    assert len(names) > 10


def test_the_neighbourhood_of_the_ventricles_reaches_8_mm_and_no_cortex():
    grid = working_grid((96, 96, 80), 2.0)
    found = near_ventricles(grid)
    inverse = np.linalg.inv(grid.affine)

    def at(*place_mm):
        return bool(found[tuple(np.rint(inverse[:3, :3] @ place_mm + inverse[:3, 3]).astype(int))])

    assert all(at(*place) for place in ((10, 10, 16), (-10, 10, 16), (0, -13, 3), (18, -5, 20)))
    assert not any(at(*place) for place in ((50, 10, 16), (0, 50, 50), (0, -70, -40), (30, 0, 40)))
    np.testing.assert_array_equal(found, found[::-1])  # the template is symmetric


def test_a_name_does_not_depend_on_the_order_of_the_axes() -> None:
    sides = np.linspace(20, 35, 11), np.linspace(-25, -1, 18), np.linspace(30, 45, 11)  # across the central sulcus
    places = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1)
    orders = [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1), (1, 0, 2), (2, 0, 1)]
    found = {region_of(places.transpose(*order, 3).reshape(-1, 3)) for order in orders}
    assert found == {"parietal white matter, right, and further"}
