"""Geometry of an exam: rigid registration, one brain mask, one affine, and what is refused."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from halebrain.core.errors import DataError
from halebrain.core.types import Volume
from halebrain.preprocessing.brain.given import extract_stripped
from halebrain.preprocessing.exam import align_exam, apart_flag, compare_registrations
from halebrain.preprocessing.exam_brains import ExamScan, find_doubts, fit_brain
from halebrain.preprocessing.geometry import Grid, apply_affine, resample
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor
from halebrain.preprocessing.registration import register_rigid
from halebrain.preprocessing.template import load_template

CONFIG = PreprocessingConfig(shape=(48, 48, 40), spacing_mm=4.0, brain="auto", bias_correction="none")


def rigid(degrees=(0.0, 0.0, 0.0), mm=(0.0, 0.0, 0.0)):
    """Return a rigid world-to-world matrix."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = mm
    return matrix


def head(*, contrast="T1w", spacing=(2.0, 2.0, 2.0), moved=None, upper=1.0, skull=False):
    """Return the template's brain as a scan of a contrast, on its own grid, moved, cut at a part of its height."""
    volume, mask = load_template(2)
    data = np.where(mask, 0.1 + volume.data / volume.data[mask].max(), 0)
    if contrast != "T1w":
        data = np.where(mask, 1.3 - data**2, 0)
    if skull:
        rim = resample(mask.astype(np.float32), Grid(mask.shape, volume.affine), Grid(mask.shape, volume.affine)) > 0.5
        from scipy import ndimage

        outer = ndimage.binary_dilation(rim, iterations=6)
        data = np.where(outer & ~ndimage.binary_dilation(rim, iterations=2), 1.5, data) + 0.02 * (~outer)
    source = Grid(volume.shape, volume.affine)
    factors = np.array(spacing) / 2.0
    shape = tuple(int(n) for n in np.ceil(np.array(volume.shape) / factors))
    affine = volume.affine @ np.diag([*factors, 1.0])
    shape = (shape[0], shape[1], int(shape[2] * upper))
    made = resample(data.astype(np.float32), source, Grid(shape, affine))
    noise = np.random.default_rng(len(contrast)).normal(0, 0.01, shape)
    made = np.where(made > 0, made + noise, 0).astype(np.float32)
    return Volume(made, affine if moved is None else moved @ affine, name=contrast)


def error_mm(found, true):
    """Return the mean distance of two matrices in the brain."""
    volume, mask = load_template(2)
    points = apply_affine(volume.affine, np.argwhere(mask)[::200].astype(np.float64))
    return float(np.linalg.norm(apply_affine(found, points) - apply_affine(true, points), axis=1).mean())


@pytest.mark.parametrize(
    ("degrees", "mm", "options"),
    [
        pytest.param((0, 0, 0), (0, 0, 0), {}, marks=pytest.mark.slow),
        ((8, -5, 6), (12, -7, 9), {}),
        pytest.param((20, 10, -15), (60, -40, 300), {}, marks=pytest.mark.slow),
        pytest.param((3, 2, -4), (5, 3, -2), {"spacing": (1.5, 1.5, 5.0)}, marks=pytest.mark.slow),
        pytest.param((3, 2, -4), (5, 3, -2), {"upper": 0.55}, marks=pytest.mark.slow),
        ((3, 2, -4), (5, 3, -2), {"skull": True}),
    ],
    ids=["as it lies", "moved", "far away", "thick slices", "a part of the brain", "with a skull"],
)
def test_another_contrast_of_a_head_is_found_to_less_than_a_millimetre(degrees, mm, options):
    fixed, true = head(), rigid(degrees, mm)
    other = head(contrast="T2w", moved=true, **options)
    stripped = None if options.get("skull") else other.data > 0
    found = register_rigid(fixed, fixed.data > 0, other, other_brain=stripped)
    assert error_mm(found.matrix, true) < 1.0
    assert np.allclose(found.matrix[:3, :3] @ found.matrix[:3, :3].T, np.eye(3), atol=1e-9)
    assert found.overlap > (0.9 if "upper" not in options else 0.4)


@pytest.mark.slow
def test_headers_that_agree_are_kept_to_the_bit():
    fixed, other = head(), head(contrast="T2w")
    found = register_rigid(fixed, fixed.data > 0, other, other_brain=other.data > 0)
    assert np.array_equal(found.matrix, np.eye(4))
    assert found.moved_mm == 0.0


def test_scans_without_common_brain_are_refused():
    fixed = head()
    neck = head(contrast="T2w", upper=0.09)
    with pytest.raises(DataError, match="same part of the head"):
        register_rigid(fixed, fixed.data > 0, neck, other_brain=neck.data > 0)


@pytest.fixture(scope="module")
def aligned():
    """An exam of a fine T1 and a moved FLAIR of thick slices."""
    true = rigid((4, -3, 5), (8, -6, 4))
    flair = head(contrast="FLAIR", spacing=(1.5, 1.5, 5.0), moved=true)
    scans = [ExamScan("flair", flair, contrast="FLAIR"), ExamScan("t1", head(), contrast="T1w")]
    return align_exam(Preprocessor(CONFIG), scans), true


@pytest.mark.slow
def test_the_finest_scan_is_the_reference_and_the_reason_is_stated(aligned):
    exam, _ = aligned
    assert [scan.name for scan in exam.scans] == ["t1", "flair"]
    assert exam.reason == "its voxels are the smallest (2 × 2 × 2 mm)"
    assert exam.failed == {}


@pytest.mark.slow
def test_all_scans_share_one_affine(aligned):
    exam, true = aligned
    t1, flair = exam.scans
    assert np.array_equal(t1.to_reference, np.eye(4))
    assert error_mm(np.linalg.inv(flair.to_reference), true) < 1.0
    through = flair.to_reference @ flair.scan.template_to_native
    assert np.allclose(through, t1.scan.template_to_native, atol=1e-6)
    assert "through t1" in str({step.step: step.method for step in flair.scan.steps}["registration"])
    compared = compare_registrations(Preprocessor(CONFIG), flair)
    assert compared.apart_mm is not None
    assert 0 < compared.apart_mm < 4.0
    assert compared.scan.steps[-1].step == "exam"
    assert compare_registrations(Preprocessor(CONFIG), t1) is t1
    both = t1.scan.brain_mask & flair.scan.brain_mask
    assert both.sum() > 0.9 * t1.scan.brain_mask.sum()


@pytest.mark.slow
def test_one_scan_alone_is_preprocessed_as_without_an_exam():
    scan, preprocessor = head(), Preprocessor(CONFIG)
    exam, alone = align_exam(preprocessor, [ExamScan("t1", scan)]), preprocessor.run(scan)
    assert np.array_equal(exam.scans[0].scan.image, alone.image)
    assert np.array_equal(exam.scans[0].scan.template_to_native, alone.template_to_native)
    assert exam.scans[0].scan.qc == alone.qc
    assert exam.reason == "it is the only scan (2 × 2 × 2 mm)"


@pytest.mark.slow
def test_a_mask_of_one_scan_serves_another_with_its_skull():
    """The brain in the second scan is that of the first, moved into it."""
    true = rigid((3, 2, -4), (5, 3, -2))
    other = head(contrast="FLAIR", moved=true, skull=True)
    exam = align_exam(
        Preprocessor(CONFIG), [ExamScan("t1", head(), contrast="T1w"), ExamScan("flair", other, contrast="FLAIR")]
    )
    first, second = exam.scans
    assert second.scan.qc.brain_method == "stripped, found in t1"
    volumes = [scan.scan.qc.brain_volume_ml for scan in (first, second)]
    assert volumes[1] == pytest.approx(volumes[0], rel=0.03)


@pytest.mark.slow
def test_scans_in_template_space_are_used_where_they_lie():
    scans = [
        ExamScan(name, head(contrast=name), space="MNI152NLin2009aSym", contrast=name) for name in ("T1w", "FLAIR")
    ]
    exam = align_exam(Preprocessor(CONFIG), scans)
    assert all(np.array_equal(scan.scan.template_to_native, np.eye(4)) for scan in exam.scans)
    assert [scan.apart_mm for scan in exam.scans] == [None, None]


def test_brains_of_different_sizes_are_refused_or_noted():
    small = replace(head(contrast="FLAIR"), affine=np.diag([0.88, 0.88, 0.88, 1.0]) @ head().affine)
    scans = [ExamScan("t1", head(), contrast="T1w"), ExamScan("flair", small, contrast="FLAIR")]
    with pytest.raises(DataError, match=r"of one person, got .* ml of brain in flair and .* ml in t1"):
        align_exam(Preprocessor(CONFIG), scans)


def doubts_of(other, matrix):
    """Return what is doubted of a stripped scan that was registered to the template's brain by a matrix."""
    first, second = ExamScan("t1", head()), ExamScan("flair", other)
    brain, own = extract_stripped(first.volume), extract_stripped(other)
    return find_doubts(brain, first, second, own, fit_brain(brain, first, second, matrix))


def test_a_brain_of_another_shape_is_doubted_to_be_of_the_same_person():
    """Volumes agree to a hundredth, so that sizes alone show nothing."""
    assert doubts_of(head(contrast="FLAIR"), np.eye(4)) == ()
    wide = replace(head(contrast="FLAIR"), affine=np.diag([1.1, 0.91, 1.0, 1.0]) @ head().affine)
    (doubt,) = doubts_of(wide, np.eye(4))
    said = r"[3-9]% of the smaller brain of flair and t1 lies outside the other after registration: check that they .*"
    assert re.fullmatch(said, doubt)


def test_headers_that_place_two_scans_apart_are_told():
    true = rigid(mm=(400, 0, 0))
    (doubt,) = doubts_of(head(contrast="FLAIR", moved=true), true)
    assert doubt.startswith("by their headers, flair shows nothing of the brain of t1; they were registered by")
    assert doubts_of(head(contrast="FLAIR", moved=rigid(mm=(40, 0, 0))), rigid(mm=(40, 0, 0))) == ()


@pytest.mark.slow
def test_a_scan_that_cannot_be_used_does_not_stop_the_others():
    outside = ExamScan("neck", head(contrast="T2w", upper=0.09), contrast="T2w")
    exam = align_exam(Preprocessor(CONFIG), [ExamScan("t1", head(), contrast="T1w"), outside])
    assert [scan.name for scan in exam.scans] == ["t1"]
    assert set(exam.failed) == {"neck"}
    assert exam.notes[0].startswith("neck is not used: ")


def test_registrations_that_disagree_are_flagged_with_their_distance():
    assert apart_flag(3.9, "t1") is None
    assert "through t1 are 7.3 mm apart" in str(apart_flag(7.31, "t1"))
