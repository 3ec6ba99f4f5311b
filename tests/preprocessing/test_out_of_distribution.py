"""Foreign and spoilt scans are named; healthy and diseased T1, T2 and FLAIR are not."""

import numpy as np
import pytest
from scipy import ndimage

from halebrain.core.errors import DataError
from halebrain.core.provenance import UNKNOWN, QualityReport
from halebrain.core.types import TEMPLATE_SPACE, Volume
from halebrain.io.volume import read_volume
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor
from halebrain.preprocessing.quality.rules import RULES, WIDE_VENTRICLES, apply_quality_rules, check_contrast_label
from halebrain.simulation.anatomy import TISSUES
from halebrain.simulation.config import CohortConfig
from halebrain.simulation.subject import render_subject, sample_subject

PREPROCESSOR = Preprocessor(PreprocessingConfig(registration="none", bias_correction="none"))
# White matter, cortex, nuclei, CSF of the sulci, CSF of the ventricles; resolution in mm.
FOREIGN = {
    "proton density": ((0.72, 0.86, 0.80, 0.92, 0.95), 2, "unlike T1w, T2w and FLAIR"),
    "susceptibility": ((0.62, 0.64, 0.52, 0.70, 0.72), 2, "unlike T1w, T2w and FLAIR"),
    "fractional anisotropy": ((0.65, 0.15, 0.25, 0.06, 0.05), 2, "unlike T1w, T2w and FLAIR"),
    "FDG-PET": ((0.40, 0.90, 0.95, 0.12, 0.10), 7, "unlike T1w, T2w and FLAIR"),
    "amyloid PET": ((0.90, 0.55, 0.70, 0.20, 0.15), 7, "as smooth as PET"),
}


def subject(seed, pathology="healthy"):
    config = CohortConfig(seed=seed)
    return render_subject(sample_subject(f"{pathology}{seed}", pathology, config), spacing_mm=2.0)


@pytest.fixture(scope="module")
def healthy():
    return subject(3)


@pytest.fixture(scope="module")
def t1(healthy):
    return np.rint(healthy.scans["T1w"].numpy() * 1000)


def run(healthy, data, *, scale=1.0, cut=0):
    """Preprocess an image of the healthy subject, its head scaled about the middle of the grid, or cut at the top."""
    mask, affine = healthy.brain_mask.numpy(), healthy.anatomy.grid.affine.copy()
    affine[:3] *= scale
    stop = data.shape[2] - cut
    volume = Volume(np.ascontiguousarray(data[..., :stop], dtype=np.float32), affine)
    return PREPROCESSOR.run(volume, brain_mask=mask[..., :stop].copy(), space=TEMPLATE_SPACE).qc


def paint(healthy, means, resolution_mm, *, noise=0.01):
    mask = healthy.brain_mask.numpy()
    image = np.tensordot(np.array(means), healthy.anatomy.tissues.numpy(), axes=1)
    sigma = resolution_mm / 2.355 / 2.0
    image = ndimage.gaussian_filter(image, sigma) / np.maximum(ndimage.gaussian_filter(mask.astype(float), sigma), 0.2)
    return np.where(mask, image + noise * np.random.default_rng(0).standard_normal(image.shape), 0) * 1000


def judged(images):
    """Return contrast → quality report of the scans of a person, their contrast being told."""
    qcs = {name: run(images, np.rint(image.numpy() * 1000)) for name, image in images.scans.items()}
    return {name: check_contrast_label(qc, name) for name, qc in qcs.items()}


def true_ventricles_ml(images):
    return float(images.anatomy.tissues[TISSUES.index("ventricle")].sum()) * 8 / 1000


def check_clean(images):
    for modality, qc in judged(images).items():
        assert qc.flags == (), (modality, qc)
        assert not qc.out_of_distribution
        assert qc.contrast == modality or not qc.contrast_sure


@pytest.mark.slow
def test_healthy_scans_and_those_of_patients_are_not_flagged(healthy):
    check_clean(healthy)
    check_clean(subject(1, "tumour"))


@pytest.mark.sweep
@pytest.mark.parametrize("seed", [20, 21, 22, 23])
def test_hardly_any_false_flags_over_many_people(seed):
    """A FLAIR of little contrast with dark nuclei has the tissues of a T1w: then the contrast is to be checked.

    That ventricles are wide is true or false of a person, whatever the scan.
    """
    people = [subject(seed, pathology) for pathology in ("healthy", "tumour", "stroke", "ms", "wmh")]
    reports = [(name, qc) for images in people for name, qc in judged(images).items()]
    wide = [true_ventricles_ml(images) for images in people for _ in images.scans]
    for (_, qc), size_ml in zip(reports, wide, strict=True):
        flagged = any(flag.startswith(WIDE_VENTRICLES) for flag in qc.flags)
        assert flagged or size_ml < 70
        assert not flagged or size_ml > 45
    flags = [flag for _, qc in reports for flag in qc.flags if not flag.startswith(WIDE_VENTRICLES)]
    assert set(flags) <= {"its name says FLAIR, but the image looks like T1w: check the contrast"}
    assert len(flags) <= len(reports) / 5
    assert not any(qc.out_of_distribution for _, qc in reports)


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_none_of_the_contrasts_is_named(healthy, kind):
    means, resolution_mm, words = FOREIGN[kind]
    # Tomographs filter their noise away.
    qc = run(healthy, paint(healthy, means, resolution_mm, noise=0.01 if resolution_mm < 5 else 0.0))
    assert any(words in reason for reason in qc.out_of_distribution_reasons), qc
    assert qc.out_of_distribution
    assert set(qc.out_of_distribution_reasons) <= set(qc.flags)
    if "FLAIR" in words:
        assert qc.contrast == UNKNOWN


@pytest.mark.parametrize(
    ("means", "contrast"),
    [
        ((0.90, 0.56, 0.74, 0.12, 0.10), "T1w"),
        ((0.21, 0.33, 0.25, 0.95, 1.00), "T2w"),
        ((0.66, 0.80, 0.75, 0.10, 0.08), "FLAIR"),
    ],
)
@pytest.mark.parametrize(("gain", "offset"), [(0.001, 0.0), (3.0, 0.0), (0.01, -7.0)])
def test_the_contrast_does_not_depend_on_the_units(healthy, means, contrast, gain, offset):
    data = paint(healthy, means, 2)
    qc = run(healthy, np.where(healthy.brain_mask.numpy(), gain * data + offset, 0))
    assert qc.contrast == contrast
    assert qc.contrast_sure
    assert qc.flags == ()


@pytest.mark.slow
def test_a_cut_head_a_child_and_a_small_head_are_named(healthy, t1):
    cut = run(healthy, t1, cut=26)
    assert any("cut off" in reason for reason in cut.out_of_distribution_reasons)
    assert not any("not an adult's" in flag for flag in cut.flags)
    whole_ml = run(healthy, t1).brain_volume_ml
    child = run(healthy, t1, scale=(900 / whole_ml) ** (1 / 3))
    assert any("900 ml is not an adult's" in reason for reason in child.out_of_distribution_reasons)
    small = run(healthy, t1, scale=(1000 / whole_ml) ** (1 / 3))
    assert any("a small brain (1000 ml)" in flag for flag in small.flags)
    assert not any("small brain" in reason for reason in small.out_of_distribution_reasons)


@pytest.mark.slow
def test_stored_and_rendered_intensities_are_named(healthy, t1):
    mask = healthy.brain_mask.numpy()
    eight = np.rint(255 * t1 / t1.max())
    for data in (eight, eight / 255, 4 * eight):
        qc = run(healthy, data)
        assert any("8-bit" in flag for flag in qc.flags)
        assert not qc.out_of_distribution
    clipped = run(healthy, np.minimum(t1, np.percentile(t1[mask], 90)))
    assert any("10 % of the brain is at the highest" in reason for reason in clipped.out_of_distribution_reasons)
    equalised = np.zeros_like(t1)
    order = t1[mask] + np.random.default_rng(0).uniform(0, 1, int(mask.sum()))
    equalised[mask] = order.argsort().argsort() + 1.0
    reasons = run(healthy, equalised).out_of_distribution_reasons
    assert any("histogram equalisation" in reason for reason in reasons)


@pytest.mark.slow
def test_normalised_scans_are_noted_and_pass(healthy, t1):
    mask = healthy.brain_mask.numpy()
    unit = run(healthy, t1 / t1.max())
    standard = run(healthy, np.where(mask, (t1 - t1[mask].mean()) / t1[mask].std(), 0))
    assert (unit.normalised, standard.normalised) == ("to [0, 1]", "standardised")
    assert unit.flags == standard.flags == ()
    assert run(healthy, t1).normalised is None


@pytest.mark.parametrize(("data", "word"), [("noise", "noise"), ("one", "7 everywhere")])
def test_noise_and_an_empty_shape_are_refused_with_one_line(healthy, data, word):
    mask = healthy.brain_mask.numpy()
    noise = np.random.default_rng(0).normal(100, 10, mask.shape)
    image = np.where(mask, noise if data == "noise" else 7.0, 0).astype(np.float32)
    volume = Volume(image, healthy.anatomy.grid.affine, name="odd.nii.gz")
    with pytest.raises(DataError, match=rf"must vary and show structure, got {word}.* in 'odd\.nii\.gz'") as caught:
        Preprocessor(PreprocessingConfig()).run(volume, brain_mask=mask)
    assert "\n" not in str(caught.value)


GOOD = {
    "registration_failed": False,
    "registration_mask_dice": 0.95,
    "registration_margin": 1.6,
    "orientation_ratio": 3.0,
    "cut_face": 0.19,
    "cut_off": 0.0,
    "spacing_max_mm": 4.0,
    "brain_voxels_across": 26,
    "contrast": "T1w",
    "tissue_levels": {"white": 0.9, "cortex": 0.7, "deep": 0.7, "fluid": 0.1},
    "smoothness": 0.84,
    "brain_volume_ml": 1069.0,
    "ventricles_ml": 50.0,
    "saturated_share": 0.01,
    "distance_to_uniform": 0.04,
    "grey_levels": 438,
    "highest_intensity": 438.0,
}
BAD = {
    "thick slices": ({"spacing_max_mm": 4.5}, "4.5 mm"),
    "doubtful mask": ({"brain_confidence": 0.85, "brain_method": "atlas"}, "low confidence (0.85)"),
    "mask by atlas": ({"brain_confidence": 0.9, "brain_method": "atlas"}, "check the brain mask"),
    "registration": ({"registration_failed": True, "registration_mask_dice": 0.7}, "0.70"),
    "orientation": ({"orientation_ratio": 0.9}, "0.90"),
    "overlap": ({"registration_mask_dice": 0.87}, "0.87"),
    "margin": ({"registration_margin": 1.31}, "1.31 times"),
    "field of view": ({"cut_off": 0.05}, "5 %"),
    "resolution": ({"brain_voxels_across": 9}, "9 voxels"),
    "contrast": ({"contrast": "unknown"}, "cortex 0.70"),
    "smoothness": ({"smoothness": 0.9}, "0.90"),
    "child": ({"brain_volume_ml": 900.0}, "900 ml"),
    "small brain": ({"brain_volume_ml": 1000.0}, "1000 ml"),
    "wide ventricles": ({"ventricles_ml": 84.4}, "about 84 ml"),
    "saturation": ({"saturated_share": 0.07}, "7 %"),
    "equalisation": ({"distance_to_uniform": 0.01}, "0.010"),
    "8 bit": ({"grey_levels": 255, "highest_intensity": 255.0}, "255"),
    "two placements": ({"placements_apart_mm": 18.04}, "differ by 18.0 mm"),
}


def test_every_rule_has_a_case():
    assert [rule.name for rule in RULES] == list(BAD)


def test_a_scan_that_ends_within_the_brain_is_told_by_the_area_that_was_measured():
    (flag,) = apply_quality_rules(QualityReport(**GOOD | {"cut_face": 0.5})).flags
    assert "it ends within the brain (50 % of its largest cross-section)" in flag


@pytest.mark.parametrize("name", BAD)
def test_a_rule_tells_what_it_measured_and_no_other_rule_speaks(name):
    change, value = BAD[name]
    qc = apply_quality_rules(QualityReport(**{**GOOD, **change}, flags=("before",)))
    withholds = next(rule.withholds for rule in RULES if rule.name == name)
    assert len(qc.flags) == 2, qc.flags
    assert qc.flags[0] == "before"
    assert value in qc.flags[1]
    assert qc.out_of_distribution == withholds
    assert qc.out_of_distribution_reasons == (qc.flags[1:] if withholds else ())


def test_voxels_coarser_than_those_of_the_training_are_thick_too():
    assert apply_quality_rules(QualityReport(**GOOD | {"spacing_max_mm": 6.0})).flags == ("thick slices (6.0 mm)",)
    thick, coarse = apply_quality_rules(QualityReport(**GOOD | {"spacing_max_mm": 6.5})).flags
    assert thick == "thick slices (6.5 mm)"
    assert coarse.startswith("voxels of 6.5 mm are coarser")


def test_what_was_not_measured_says_nothing():
    for figures in (dict(GOOD), {}, dict.fromkeys(GOOD)):
        report = apply_quality_rules(QualityReport(**figures))
        assert report.flags == ()
        assert report.out_of_distribution is False


def test_few_voxels_and_a_misplaced_unknown():
    qc = apply_quality_rules(QualityReport(**{**GOOD, "brain_voxels_across": 9}))
    assert "9 voxels across" in qc.flags[0]
    # Where the head lies wrongly, tissues were read in the wrong places.
    qc = apply_quality_rules(QualityReport(**{**GOOD, "orientation_ratio": 0.5, "contrast": "unknown"}))
    assert len(qc.flags) == 1
    assert "upside down" in qc.flags[0]
    qc = apply_quality_rules(QualityReport(**{**GOOD, "registration_failed": True, "ventricles_ml": 90.0}))
    assert len(qc.flags) == 1


def test_a_name_that_says_another_contrast():
    qc = apply_quality_rules(QualityReport(**GOOD, contrast_sure=True))
    for named in ("T1w", "T1ce", None, "scan"):
        qc = check_contrast_label(qc, named)
    assert qc.flags == ()
    qc = check_contrast_label(check_contrast_label(qc, "FLAIR"), "FLAIR")
    assert qc.flags == ("its name says FLAIR, but the image looks like T1w: check the contrast",)
    assert not qc.out_of_distribution
    assert check_contrast_label(qc, "ADC").out_of_distribution
    close = QualityReport(**GOOD, contrast_sure=False)
    assert check_contrast_label(close, "FLAIR").flags == ()


def test_the_order_of_rules_and_of_the_label_loses_no_flag():
    bad = QualityReport(**{**GOOD, "brain_volume_ml": 900.0}, contrast_sure=True)
    one, other = (
        check_contrast_label(apply_quality_rules(bad), "ADC"),
        apply_quality_rules(check_contrast_label(bad, "ADC")),
    )
    assert set(one.flags) == set(other.flags) == set(other.out_of_distribution_reasons)
    assert len(one.flags) == 2
    assert bad.flags == ()


REAL = {
    "ms_mslub/patient26_MNI/T1POST*": "T1w",
    "ms_mslub/patient26_MNI/FLAIR*": "FLAIR",
    "tumour_tcga_lgg_FG-6692/sri24_1mm_bet/*_t2_bet*": "T2w",
    "healthy_t1_2mm_ds002748/sub-07*": "T1w",
}


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize(
    "pattern", [name if "FLAIR" in name else pytest.param(name, marks=pytest.mark.sweep) for name in REAL]
)
def test_real_scans_are_recognised_and_not_flagged(real_data, pattern):
    (path,) = real_data.glob(pattern)
    qc = Preprocessor(PreprocessingConfig()).run(read_volume(path)).qc
    assert qc.contrast == REAL[pattern]
    assert qc.flags == ()


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize(
    "pattern", [name if "healthy" in name else pytest.param(name, marks=pytest.mark.sweep) for name in list(REAL)[1:]]
)
def test_real_scans_upside_down_are_named(real_data, pattern):
    (path,) = real_data.glob(pattern)
    volume = read_volume(path)
    qc = Preprocessor(PreprocessingConfig()).run(Volume(volume.data[:, :, ::-1].copy(), volume.affine)).qc
    assert any("upside down" in reason for reason in qc.out_of_distribution_reasons)
