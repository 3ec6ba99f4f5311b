"""The brain in a head without weights: found in heads whose truth is known, refused where there is none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from halebrain.core.errors import DataError
from halebrain.core.mask import dice
from halebrain.core.types import Affine, MaskArray, Volume
from halebrain.io.volume import read_volume
from halebrain.preprocessing.brain import BRAIN_EXTRACTORS, atlas, extract_automatically, extract_by_atlas
from halebrain.preprocessing.brain.head import head_mask, isotropic
from halebrain.preprocessing.brain.prior import load_prior
from halebrain.preprocessing.brain.surface import fit_surface
from halebrain.preprocessing.geometry import Grid, resample
from halebrain.preprocessing.template import load_template

TISSUE = {"T1w": (0.25, 0.05, 1.2), "T2w": (1.6, 0.05, 0.9), "FLAIR": (0.25, 0.05, 1.2)}
"""CSF, skull and scalp as shares of the brain's intensity."""


def native_to_template() -> Affine:
    """Return where the heads lie: nodded, moved and smaller than the template."""
    nod = np.eye(4)
    cos, sin = np.cos(0.2), np.sin(0.2)
    nod[1:3, 1:3] = [[cos, -sin], [sin, cos]]
    size = np.diag([1.08, 1.06, 1.07, 1.0])  # native → template: the head is smaller
    shift = np.eye(4)
    shift[:3, 3] = [6, -14, 9]
    return np.asarray(shift @ nod @ size)


def make_head(contrast: str, rng: np.random.Generator, *, slice_mm: float = 3.0) -> tuple[Volume, MaskArray]:
    """Return a head around the template's brain, nodded, moved and smaller than the template, with its true mask."""
    template, _ = load_template(2)
    prior = load_prior()
    csf, skull, scalp = TISSUE[contrast]
    distance = prior.distance_mm
    brain = resample(template.data, Grid(template.shape, template.affine), prior.grid)
    brain = brain / np.median(brain[distance < 0])
    if contrast == "T2w":
        brain = np.where(brain > 0, 1.8 - 0.8 * brain, 0)
    if contrast == "FLAIR":
        brain = np.where(brain > 0.7, 1.8 - 0.8 * brain, brain)
    layers = [distance < 0, distance < 2.5, distance < 8, distance < 14]
    head = np.select(layers, [brain, np.full_like(brain, csf), np.full_like(brain, skull), np.full_like(brain, scalp)])
    affine = np.diag([2.0, 2.0, slice_mm, 1.0])
    affine[:3, 3] = [-120, -150, -110]
    native = Grid((120, 130, round(225 / slice_mm)), affine)
    to_template = native_to_template()
    image = resample(head.astype(np.float32), prior.grid, native, target_to_source=to_template)
    truth = resample((distance < 0).astype(np.float32), prior.grid, native, target_to_source=to_template) > 0.5
    noisy = np.abs(image + rng.normal(0, 0.02, image.shape))
    return Volume(noisy.astype(np.float32), affine, name=f"{contrast}.nii.gz"), truth


@pytest.mark.slow
@pytest.mark.parametrize("contrast", ["T1w", pytest.param("T2w", marks=pytest.mark.slow)])
def test_the_brain_of_a_head_is_found(contrast: str, rng: np.random.Generator) -> None:
    volume, truth = make_head(contrast, rng)
    found = extract_automatically(volume)
    assert found.method == "atlas"
    overlap = 2 * (found.mask & truth).sum() / (found.mask.sum() + truth.sum())
    assert overlap > 0.95
    assert found.confidence > 0.8
    # In T2 the CSF around the brain is as bright as the brain: a rim of it is taken in.
    assert found.volume_ml == pytest.approx(truth.sum() * 12 / 1000, rel=0.05 if contrast == "T1w" else 0.12)


@pytest.mark.slow
def test_a_head_whose_air_is_negative_has_the_same_brain(rng: np.random.Generator) -> None:
    head, _ = make_head("T1w", rng)
    standardised = replace(head, data=(head.data - head.data.mean()) / head.data.std())
    assert dice(extract_by_atlas(standardised).mask, extract_by_atlas(head).mask) > 0.99


@pytest.mark.slow
def test_few_voxels_find_the_brain_of_thin_slices_as_well(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, truth = make_head("T1w", rng, slice_mm=2.4)
    quick = extract_by_atlas(volume)
    monkeypatch.setattr(atlas, "_THIN_MM", 1.0)
    thorough = extract_by_atlas(volume)
    assert dice(quick.mask, truth) > 0.95
    assert dice(quick.mask, thorough.mask) > 0.99
    assert not np.array_equal(quick.template_to_native, thorough.template_to_native)


@pytest.mark.slow
@pytest.mark.parametrize("share", [1.0, 1.8])
def test_a_bright_lesion_at_the_surface_stays_in_the_brain_in_flair(share: float, rng: np.random.Generator) -> None:
    volume, truth = make_head("FLAIR", rng)
    places = np.argwhere(truth) * np.array([2.0, 2.0, 3.0])
    outermost = places[places[:, 0].argmax()]
    lesion = np.zeros(truth.shape, dtype=bool)
    lesion[truth] = np.linalg.norm(places - outermost, axis=1) < 20
    bright = np.where(lesion, share * np.median(volume.data[truth]), volume.data).astype(np.float32)
    ill = Volume(bright, volume.affine, name="FLAIR.nii.gz")
    place, prior = np.linalg.inv(native_to_template()), load_prior()
    found = fit_surface(ill, prior, place, prior_sigma_mm=4.0).mask(ill, prior, place)
    assert found[lesion].mean() > 0.95


FOLDED = {"T1w": (1.0, 0.68, 0.3, 0.15, 0.8), "T2w": (0.5, 0.6, 1.2, 0.06, 0.5)}
"""White matter, grey matter, CSF, skull and scalp."""


def folded_head(contrast: str) -> tuple[Volume, MaskArray]:
    """Return a head in the place of the template whose cortex has hollows 8 mm deep, 20 mm apart, and its hull."""
    white, grey, csf, skull, scalp = FOLDED[contrast]
    prior = load_prior()
    distance, brightness = prior.distance_mm, prior.brightness
    x, y, z = (np.cos(2 * np.pi * axis * 2.0 / 20) for axis in np.indices(distance.shape))
    height = (np.clip(x * y + y * z + z * x, -1, 1) + 1) / 2
    brain = distance < -8 * (1 - height) ** 2
    inside = np.where(ndimage.distance_transform_edt(brain) * 2 > 4, white, grey)
    inside = np.where((distance < -14) & (brightness < 0.85), grey, inside)
    inside = np.where((distance < -25) & (brightness < 0.6), csf, inside)
    layers = [brain, distance < 0.4, distance < 8, distance < 14]
    values = [inside, *(np.full_like(distance, value) for value in (csf, skull, scalp))]
    head = ndimage.gaussian_filter(np.select(layers, values), 1.0)
    return Volume(head.astype(np.float32), prior.affine, name=contrast), distance < 0


@pytest.mark.slow
def test_one_anatomy_has_one_volume_in_t1_and_t2() -> None:
    share, prior = {}, load_prior()
    for contrast in FOLDED:
        volume, hull = folded_head(contrast)
        found = fit_surface(volume, prior, np.eye(4), prior_sigma_mm=4.0).mask(volume, prior, np.eye(4))
        share[contrast] = found.sum() / hull.sum()
    assert share["T1w"] == pytest.approx(share["T2w"], rel=0.015)
    assert share["T1w"] == pytest.approx(1, abs=0.02)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("person", ["02", pytest.param("06", marks=pytest.mark.sweep)])
def test_one_person_has_one_volume_in_t1_and_t2(real_data: Path, person: str) -> None:
    folder = real_data / "healthy_wholehead_t1_t2_ds000011"
    scans = [read_volume(folder / f"sub-{person}_{name}.nii.gz") for name in ("T1w", "inplaneT2")]
    t1, t2 = (extract_by_atlas(scan).volume_ml for scan in scans)
    assert t1 / t2 == pytest.approx(1, abs=0.04)


def test_a_stripped_scan_is_left_as_it_is() -> None:
    template, mask = load_template(2)
    volume = Volume(np.where(mask, template.data, 0).astype(np.float32), template.affine)
    assert extract_automatically(volume).method == "stripped"


@pytest.mark.parametrize(
    "what",
    [
        pytest.param("noise", marks=[pytest.mark.slow, pytest.mark.sweep]),
        pytest.param("ball", marks=pytest.mark.slow),
        "dark",
    ],
)
def test_what_is_no_head_is_refused(what: str, rng: np.random.Generator) -> None:
    shape = (70, 80, 60)
    distance = np.linalg.norm(np.indices(shape).T - np.array(shape) / 2, axis=-1).T
    data = {
        "noise": np.abs(rng.normal(100, 20, shape)),
        "ball": 100.0 * (distance < 25) + np.abs(rng.normal(0, 1, shape)),
        "dark": np.full(shape, -100.0),
    }[what]
    volume = Volume(data.astype(np.float32), np.diag([3.0, 3.0, 3.0, 1.0]), name=f"{what}.nii.gz")
    with pytest.raises(DataError, match=f"{what}.nii.gz"):
        extract_by_atlas(volume)


@pytest.mark.slow
def test_the_head_is_what_stands_out_of_the_noise(rng: np.random.Generator) -> None:
    volume, truth = make_head("T1w", rng)
    small = isotropic(volume)
    head = head_mask(small)
    brain = resample(truth.astype(np.float32), Grid(volume.shape, volume.affine), Grid(small.shape, small.affine)) > 0.5
    assert (head & brain).sum() > 0.99 * brain.sum()
    # The scalp ends 14 mm from the brain.
    far = ndimage.distance_transform_edt(~brain) * 2 > 17
    assert (head & far).sum() < 0.01 * head.sum()


def test_extractors_are_known_by_name() -> None:
    assert set(BRAIN_EXTRACTORS.names()) >= {"auto", "atlas", "stripped"}
