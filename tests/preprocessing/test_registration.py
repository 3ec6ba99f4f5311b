import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from halebrain.core.errors import DataError, UnavailableError
from halebrain.core.types import Volume
from halebrain.preprocessing.geometry import apply_affine
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor
from halebrain.preprocessing.registration import REGISTRATION_ENGINES, default_engine, greedy, register_to_template
from halebrain.preprocessing.registration.base import prepare_brain
from halebrain.preprocessing.registration.starts import SharedInformation, about, find_starts, fit_inside
from halebrain.preprocessing.template import find_template, load_template

ENGINES = ("greedy", "simpleitk")


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


def test_the_unit_of_the_intensities_does_not_matter():
    volume, mask, _ = moved((5, 0, 0), (10, 0, 0))
    tiny = Volume(volume.data * np.float32(1e-11), volume.affine)
    np.testing.assert_allclose(prepare_brain(tiny, mask).image.data, prepare_brain(volume, mask).image.data, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("degrees", "shift_mm", "scale"),
    [
        pytest.param((0, 0, 0), (0, 0, 0), 1.0, marks=pytest.mark.sweep),
        pytest.param((12, -6, 8), (15, -30, 20), 1.0, marks=pytest.mark.sweep),
        ((-8, 5, -40), (-60, 40, 90), 0.92),
    ],
)
def test_a_known_movement_is_found(degrees, shift_mm, scale, engine):
    volume, mask, matrix = moved(degrees, shift_mm, scale)
    result = register_to_template(volume, mask, engine=engine)
    assert not result.failed
    assert result.engine == engine
    assert target_error_mm(result.template_to_native, matrix).max() < 1.5
    assert result.mask_dice > 0.97
    assert result.margin > 2
    assert result.scale == pytest.approx(scale**3, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    "degrees",
    [*(pytest.param(d, marks=pytest.mark.sweep) for d in ((35, 0, 0), (0, 35, 0), (0, 0, 35))), (-25, 20, 25)],
)
def test_a_head_turned_about_any_axis_is_found(degrees):
    volume, mask, matrix = moved(degrees, (10, -20, 30), inverted=True)
    result = register_to_template(volume, mask)
    assert not result.failed
    assert np.median(target_error_mm(result.template_to_native, matrix)) < 1.0


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_another_contrast_is_registered_as_well(engine):
    volume, mask, matrix = moved((10, 4, -6), (8, 12, -15), inverted=True)
    result = register_to_template(volume, mask, engine=engine)
    assert not result.failed
    assert np.median(target_error_mm(result.template_to_native, matrix)) < 1.0


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_scan_gives_the_same_matrix(engine):
    volume, mask, _ = moved((4, -3, 7), (5, 5, 5))
    first, second = (register_to_template(volume, mask, engine=engine) for _ in range(2))
    np.testing.assert_array_equal(first.template_to_native, second.template_to_native)


@pytest.mark.slow
def test_half_a_brain_is_said_to_fail():
    volume, mask, _ = moved((0, 0, 0), (0, 0, 0))
    half = mask.copy()
    half[:, :, half.shape[2] // 3 :] = False
    result = register_to_template(Volume(np.where(half, volume.data, 0).astype(np.float32), volume.affine), half)
    assert result.failed


def shared_with(volume, mask):
    return SharedInformation.of(prepare_brain(volume, mask), find_template(), every=20)


def test_the_right_placement_shares_most_and_has_a_margin():
    volume, mask, matrix = moved((0, 0, 0), (12, -8, 5))
    shared = shared_with(volume, mask)
    assert shared.at(matrix) > 0.7
    assert shared.at(matrix @ about(Rotation.from_euler("x", 10, degrees=True).as_matrix(), shared.centre)) < 0.3
    assert shared.margin(matrix) > 2
    # What lies 25° from where it should has another placement that fits better.
    wrong = matrix @ about(Rotation.from_euler("y", 25, degrees=True).as_matrix(), shared.centre)
    assert shared.margin(wrong) < 1.25
    away = np.eye(4)
    away[:3, 3] = 400
    assert shared.at(away, within=True) == 0


@pytest.mark.parametrize("within", [True, False])
def test_what_is_shared_agrees_with_numpy_and_scipy(within):
    volume, mask, matrix = moved((0, 0, 0), (12, -8, 5))
    shared = shared_with(volume, mask)
    place = matrix @ about(Rotation.from_euler("xyz", [9, -4, 6], degrees=True).as_matrix(), shared.centre)
    voxels = apply_affine(np.linalg.inv(shared.brain.image.affine) @ place, shared.points).T
    here = ndimage.map_coordinates(shared.brain.image.data, voxels, order=1, prefilter=False)
    inside = (here > 0.05) & (shared.values > 0) if within else np.ones(len(here), dtype=bool)
    share = np.histogram2d(here[inside], shared.values[inside], bins=32)[0] / inside.sum()
    one, other, both = (-(p[p > 0] * np.log(p[p > 0])).sum() for p in (share.sum(axis=0), share.sum(axis=1), share))
    assert shared.at(place, within=within) == pytest.approx((one + other) / both - 1, rel=1e-12)


def test_no_placement_is_measured_twice_on_the_way_to_the_starts(monkeypatch):
    volume, mask, _ = moved((30, -20, 10), (5, 10, -5), scale=0.9)
    measured, at = [], SharedInformation.at

    def counted(shared, template_to_native):
        measured.append(template_to_native.tobytes())
        return at(shared, template_to_native)

    monkeypatch.setattr(SharedInformation, "at", counted)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # two threads may come to one place at once
    find_starts(prepare_brain(volume, mask), find_template(), count=1)
    assert len(set(measured)) == len(measured) > 125


def test_starts_are_near_and_alike_in_any_number_of_threads():
    volume, mask, matrix = moved((30, -20, 10), (5, 10, -5), scale=0.9)
    brain, template = prepare_brain(volume, mask), find_template()
    before, starts = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            starts.append(find_starts(brain, template, count=2))
    finally:
        torch.set_num_threads(before)
    assert target_error_mm(starts[0][0], matrix).max() < 12
    np.testing.assert_array_equal(starts[0], starts[1])


def test_a_nodded_placement_is_moved_to_where_the_inside_fits():
    volume, mask, matrix = moved((0, 0, 0), (12, -8, 5), inverted=True)
    shared = shared_with(volume, mask)
    nodded = matrix @ about(Rotation.from_euler("x", 18, degrees=True).as_matrix(), shared.centre)
    assert target_error_mm(nodded, matrix).max() > 20
    assert target_error_mm(fit_inside(shared, nodded), matrix).max() < 3


def test_greedy_is_taken_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(greedy, "is_available", lambda: True)
    assert default_engine() == "greedy"
    monkeypatch.setattr(greedy, "is_available", lambda: False)
    assert default_engine() == "simpleitk"
    with pytest.raises(UnavailableError, match="picsl_greedy"):
        Preprocessor(PreprocessingConfig(registration="greedy"))
    assert set(ENGINES) | {"ants"} == set(REGISTRATION_ENGINES.names())


def test_what_greedy_cannot_do_is_one_line_with_the_scan(monkeypatch):
    pytest.importorskip("picsl_greedy")
    volume, mask, _ = moved((0, 0, 0), (0, 0, 0))
    monkeypatch.setattr(greedy, "_PROGRAM", "import os, sys; print('out of luck', file=sys.stderr); os._exit(7)")
    brain = prepare_brain(Volume(volume.data, volume.affine, name="scan.nii.gz"), mask)
    with pytest.raises(DataError, match=r"exit code 7: out of luck.*scan\.nii\.gz"):
        REGISTRATION_ENGINES.get("greedy")(brain, np.eye(4), find_template())
