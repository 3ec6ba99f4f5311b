"""A label drawn on the working grid lands where it belongs on the scan's own grid, whatever that grid is like."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from halebrain.core.types import Volume
from halebrain.io.nifti import write_volume
from halebrain.io.volume import read_volume
from halebrain.preprocessing.geometry import Grid, apply_affine, working_grid
from halebrain.preprocessing.intensity import IntensityRange
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor, WorkingScan

WORKING = working_grid()
REACH_MM = 34.0
"""The native grid reaches this far around the label; a whole head of voxels would only cost time."""


def numbers(low, high, count):
    return st.tuples(*[st.floats(low, high)] * count)


@st.composite
def headers(draw):
    """Directions of the axes (any order, any flips, oblique), voxel sizes in mm, template-to-native, and a place."""
    order, flips = draw(st.permutations(range(3))), draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    axes = np.eye(3)[:, list(order)] * flips
    oblique = Rotation.from_euler("xyz", draw(numbers(-35, 35, 3)), degrees=True).as_matrix()
    spacing = np.array(draw(numbers(0.7, 5.5, 3)))
    turn = Rotation.from_euler("xyz", draw(numbers(-25, 25, 3)), degrees=True).as_matrix()
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ (np.diag(draw(numbers(0.85, 1.2, 3))) + 0.05 * np.triu(np.ones((3, 3)), 1))
    matrix[:3, 3] = draw(numbers(-80, 80, 3))
    middle = np.array([draw(st.floats(12, n - 13)) for n in WORKING.shape])
    return oblique @ axes @ np.diag(spacing), spacing, matrix, middle


def scan_of(linear, spacing, matrix, middle, shift):
    """Return a scan whose native grid lies around `middle` (voxels of the working grid), off its own lattice."""
    place = apply_affine(matrix, apply_affine(WORKING.affine, middle[None]))[0]
    shape = tuple(int(n) for n in np.ceil(2 * REACH_MM / spacing) + 1)
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = place - linear @ ((np.array(shape) - 1) / 2 + shift)
    native = Grid(shape, affine)
    return WorkingScan(
        image=np.zeros(WORKING.shape, np.float32),
        brain_mask=np.ones(WORKING.shape, bool),
        grid=WORKING,
        native=native,
        native_brain_mask=np.ones(shape, bool),
        template_to_native=matrix,
        intensity=IntensityRange(0.0, 1.0),
        log_bias=np.zeros(WORKING.shape, np.float32),
        content=b"",
    )


def ball(middle, radius_mm=11.0):
    offset = np.indices(WORKING.shape) - middle[:, None, None, None]
    return ((offset * 2.0) ** 2).sum(axis=0) <= radius_mm**2


def centroid(mask):
    return np.argwhere(mask).mean(axis=0)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(header=headers(), shift=numbers(-0.5, 0.5, 3))
def test_a_label_lands_within_half_a_voxel(header, shift):
    linear, spacing, matrix, middle = header
    scan = scan_of(linear, spacing, matrix, middle, np.array(shift))
    label = ball(middle)
    native = scan.to_native(label.astype(np.float32)) > 0.5
    world = apply_affine(matrix, apply_affine(WORKING.affine, centroid(label)[None]))
    expected = apply_affine(np.linalg.inv(scan.native.affine), world)[0]
    assert np.abs(centroid(native) - expected).max() < 0.5
    # The same way in by the label that was drawn there.
    back = scan.from_native(native.astype(np.float32), order=1) > 0.5
    in_mm = (centroid(back) - centroid(label)) * 2.0
    assert np.abs(in_mm).max() < 0.5 * spacing.max()


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(header=headers(), shift=numbers(-0.5, 0.5, 3))
def test_a_point_lands_within_half_a_voxel(header, shift):
    """Intensity that grows with position tells where each voxel came from, to the fraction of a voxel."""
    linear, spacing, matrix, middle = header
    scan = scan_of(linear, spacing, matrix, middle, np.array(shift))
    index = np.indices(scan.native.shape).reshape(3, -1).T.astype(float)
    world = apply_affine(np.linalg.inv(matrix), apply_affine(scan.native.affine, index))
    source = apply_affine(np.linalg.inv(WORKING.affine), world)
    inside = ((source > 1) & (source < np.array(WORKING.shape) - 2)).all(axis=1)
    for axis in range(3):
        ramp = np.broadcast_to(
            np.arange(WORKING.shape[axis], dtype=np.float32).reshape([-1 if a == axis else 1 for a in range(3)]),
            WORKING.shape,
        )
        found = scan.to_native(ramp).reshape(-1)[inside]
        # At the rim a coarser grid smooths with the empty outside; the middle of the field does not see it.
        inner = (np.abs(source[inside] - (np.array(WORKING.shape) - 1) / 2) < np.array(WORKING.shape) / 4).all(axis=1)
        assume(inner.any())
        assert np.abs(found - source[inside][:, axis])[inner].max() < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("axes", ["RAS", "LPI", "SRA", "PSL", "ILA"])
def test_the_whole_path_brings_a_label_back_through_a_file(tmp_path, axes):
    """From an oblique, anisotropic file through the pipeline, and the label out to the place of the bright spot."""
    letters = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    turn = Rotation.from_euler("xyz", [14, -9, 21], degrees=True).as_matrix()
    columns = np.stack([letters[a][1] * np.eye(3)[:, letters[a][0]] for a in axes], axis=1)
    spacing, shape = np.array([1.5, 2.0, 4.5]), (130, 100, 46)
    affine = np.eye(4)
    affine[:3, :3] = turn @ columns @ np.diag(spacing)
    affine[:3, 3] = np.array([0.0, -18.0, 6.0]) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    world = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    brain = (((world - [0, -18, 6]) / [62, 75, 58]) ** 2).sum(axis=-1) < 1
    spot = (((world - [20, -30, 15]) ** 2).sum(axis=-1) < 12**2) & brain
    data = brain * (100 + 0.3 * world[..., 0]) + 200.0 * spot
    write_volume(tmp_path / "scan.nii.gz", data.astype(np.float32), affine)
    volume: Volume = read_volume(tmp_path / "scan.nii.gz")
    config = PreprocessingConfig(registration="none", bias_correction="none", low_percentile=0, high_percentile=100)
    scan = Preprocessor(config).run(volume)
    drawn = scan.image > 0.75
    native = scan.to_native(drawn.astype(np.float32)) > 0.5
    assert np.abs(centroid(native) - centroid(spot)).max() < 0.5
    assert scan.steps[3].from_orientation == axes
