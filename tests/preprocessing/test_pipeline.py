import numpy as np
import pytest

from halebrain.core.errors import ConfigError
from halebrain.core.types import TEMPLATE_SPACE, Volume
from halebrain.preprocessing.geometry import Grid, resample
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor
from halebrain.preprocessing.template import load_template


def scan(rng, *, spacing=(1.5, 1.5, 3.0), degrees=15.0, gain=700.0, bias=0.0):
    """Return the template as an oblique, anisotropic scan in scanner units with a little noise."""
    template, mask = load_template(2)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    linear = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([-spacing[0], spacing[1], spacing[2]])
    shape = tuple(int(200 / v) for v in spacing)
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = np.array([0.0, -18.0, 6.0]) - linear @ ((np.array(shape) - 1) / 2)
    source, target = Grid(template.shape, template.affine), Grid(shape, affine)
    data = resample(np.where(mask, template.data, 0), source, target)
    brain = resample(mask.astype(np.float32), source, target) > 0.5
    field = np.exp(bias * np.linspace(-1, 1, shape[1]))[None, :, None]
    noisy = (data * field + rng.normal(0, 0.01, shape)).clip(0.02) * gain
    return Volume(np.where(brain, noisy, 0).astype(np.float32), affine, name="x.nii.gz"), brain


@pytest.fixture(scope="module")
def ran():
    rng = np.random.default_rng(0)
    volume, brain = scan(rng)
    return volume, brain, Preprocessor(PreprocessingConfig()).run(volume)


def test_the_working_scan_is_what_the_networks_expect(ran):
    _, _, result = ran
    assert result.image.shape == (96, 96, 80)
    assert result.image.dtype == np.float32
    assert (result.image.min(), result.image.max()) == (0, 1)
    assert not result.image[~result.brain_mask].any()
    assert 1200 < result.qc.working_grid_brain_ml < 2200
    assert not result.qc.registration_failed
    assert [step.step for step in result.steps][:2] == ["brain", "registration"]


def test_a_label_survives_the_way_out_and_in(ran):
    _, _, result = ran
    index = np.indices(result.image.shape)
    ball = (((index - np.array([60, 50, 45])[:, None, None, None]) * 2.0) ** 2).sum(axis=0) <= 12**2
    native = result.to_native(ball.astype(np.float32)) > 0.5
    back = result.from_native(native.astype(np.float32), order=1) > 0.5
    assert np.abs(np.argwhere(back).mean(axis=0) - [60, 50, 45]).max() < 0.5
    assert 2 * (ball & back).sum() / (ball.sum() + back.sum()) > 0.93
    assert native.sum() * result.native.voxel_mm3 == pytest.approx(ball.sum() * 8, rel=0.08)


def test_a_perfect_reconstruction_comes_back_in_the_units_of_the_scan(ran):
    volume, brain, result = ran
    native = result.reconstruction_to_native(result.image)
    assert np.corrcoef(native[brain], volume.data[brain])[0, 1] > 0.95
    assert np.median(native[brain] / volume.data[brain]) == pytest.approx(1, abs=0.03)
    assert not native[~brain].any()


def test_the_same_image_again_is_what_the_scan_became_up_to_the_edge_of_the_brain(ran):
    volume, _, result = ran
    np.testing.assert_allclose(result.image_from_native(volume.data), result.image, atol=1e-5)


@pytest.mark.slow
def test_a_smooth_field_is_taken_out(rng):
    plain = Preprocessor(PreprocessingConfig(bias_correction="none"))
    corrected = Preprocessor(PreprocessingConfig())
    flat, _ = scan(rng, bias=0.0)
    shaded, _ = scan(rng, bias=0.4)
    truth = plain.run(flat, space=TEMPLATE_SPACE).image
    inside = truth > 0
    error = [np.abs(p.run(shaded, space=TEMPLATE_SPACE).image - truth)[inside].mean() for p in (plain, corrected)]
    assert error[1] < 0.6 * error[0]


@pytest.mark.slow
def test_a_scan_in_template_space_is_not_registered_again(rng):
    volume, _ = scan(rng)
    result = Preprocessor(PreprocessingConfig()).run(volume, space=TEMPLATE_SPACE)
    np.testing.assert_array_equal(result.template_to_native, np.eye(4))
    assert "registration_mask_dice" not in result.qc.to_json()


@pytest.mark.slow
def test_a_given_mask_replaces_the_search(rng):
    volume, brain = scan(rng)
    whole = Volume(volume.data + 50.0, volume.affine, name=volume.name)
    result = Preprocessor(PreprocessingConfig()).run(whole, brain_mask=brain, space=TEMPLATE_SPACE)
    np.testing.assert_array_equal(result.native_brain_mask, brain)
    assert result.qc.brain_method == "given"


def test_an_unknown_extractor_is_said_before_the_first_scan():
    with pytest.raises(ConfigError, match="brain extractor"):
        Preprocessor(PreprocessingConfig(brain="hdbet-2"))


@pytest.mark.slow
@pytest.mark.parametrize("given", [True, False])
def test_intensities_may_be_standardised(rng, given):
    volume, brain = scan(rng)
    inside = volume.data[brain]
    mean, deviation = float(inside.mean()), float(inside.std())
    standard = Volume(np.where(brain, (volume.data - mean) / deviation, 0).astype(np.float32), volume.affine)
    pipeline = Preprocessor(PreprocessingConfig())
    plain = pipeline.run(volume, brain_mask=brain, space=TEMPLATE_SPACE)
    other = pipeline.run(standard, brain_mask=brain if given else None, space=TEMPLATE_SPACE)
    assert np.abs(plain.image - other.image)[plain.brain_mask & other.brain_mask].mean() < 0.02
    native = other.reconstruction_to_native(other.image)
    assert np.corrcoef(native[brain], standard.data[brain])[0, 1] > 0.95
    assert np.median(native[brain] - standard.data[brain]) == pytest.approx(0, abs=0.05)


@pytest.mark.slow
def test_the_number_of_threads_does_not_matter(rng):
    import SimpleITK as sitk  # noqa: N813

    volume, brain = scan(rng)
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    results = []
    for threads in (1, 2):
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
        results.append(Preprocessor(PreprocessingConfig()).run(volume, brain_mask=brain))
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    np.testing.assert_array_equal(results[0].image, results[1].image)
    assert results[0].content == results[1].content
