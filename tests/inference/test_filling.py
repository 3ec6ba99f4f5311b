"""Lesion filling on constructed scans: what is outside stays to the bit, what is inside looks like what is around."""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from halebrain.core.types import FloatArray, MaskArray, Volume
from halebrain.inference.filling import MARGIN_MM, Filling, fill_mask_in, grow
from halebrain.inference.predictor import Predictor
from halebrain.io.stored import StoredScan
from halebrain.io.volume import read_volume
from halebrain.preprocessing.geometry import Grid, resample, working_grid
from halebrain.preprocessing.intensity import IntensityRange
from halebrain.preprocessing.pipeline import WorkingScan

NOISE = 6.0
OBLIQUE = np.array([[1.9, 0.25, 0, -55], [-0.25, 1.9, 0.1, -75], [0, -0.1, 2.4, -60], [0, 0, 0, 1.0]])
STRAIGHT = np.diag([1.5, 1.5, 1.5, 1.0])
STRAIGHT[:3, 3] = (-46, -64, -40)


@dataclass
class Networks:
    """In the place of a predictor: a seed, and holes filled with `holes`, if any."""

    seed: int = 0
    holes: FloatArray | None = None
    asked: MaskArray | None = None

    def fill_holes(self, scan: WorkingScan, hole: MaskArray) -> FloatArray | None:
        self.asked = hole
        return None if self.holes is None else np.where(hole, self.holes, scan.image).astype(np.float32)


@dataclass
class Patient:
    """A made scan with its lesion, the truth without it, and a pseudo-healthy scan of the working grid."""

    volume: Volume
    healthy: FloatArray
    brain: MaskArray
    lesion: MaskArray
    scan: WorkingScan
    reconstruction: FloatArray

    def fill(self, networks: Networks | None = None, mask: MaskArray | None = None, **how: Any) -> Filling:
        predictor = cast("Predictor", networks or Networks())
        given = self.lesion if mask is None else mask
        stored = StoredScan.of(self.volume, Path("unused.mgz")) if "stored" not in how else how.pop("stored")
        return fill_mask_in(predictor, self.volume, stored, self.scan, self.reconstruction, given, **how)


def anatomy(points: npt.NDArray[np.float64]) -> FloatArray:
    """Return waves of two tissues at world positions, mm."""
    waves = np.sin(points[..., 0] / 7) + np.sin(points[..., 1] / 9) + np.cos(points[..., 2] / 8)
    return np.asarray(300 + 60 * np.tanh(2 * waves), dtype=np.float32)


def positions(grid: Grid) -> npt.NDArray[np.float64]:
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    return index @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def make_patient(affine: npt.NDArray[np.float64] = STRAIGHT, shape: tuple[int, int, int] = (62, 66, 60)) -> Patient:
    native, working = Grid(shape, affine), working_grid((56, 64, 56), 2.0)
    places = positions(native)
    centre = places.reshape(-1, 3).mean(axis=0)
    brain = ((places - centre) ** 2).sum(axis=-1) < 38**2
    rng = np.random.default_rng(0)
    texture = ndimage.gaussian_filter(rng.standard_normal(shape), 0.5)
    healthy = anatomy(places) + (NOISE * texture / texture.std()).astype(np.float32)
    healthy = np.where(brain, np.rint(healthy), 0).astype(np.float32)
    lesion = ((places - centre - (6, 4, 0)) ** 2).sum(axis=-1) < 9**2
    data = np.where(lesion, healthy + 150, healthy).astype(np.float32)
    inside = resample(brain.astype(np.float32), native, working) > 0.5
    span = IntensityRange(low=180.0, high=480.0)
    # As a reconstruction is: blurred, less contrast, an offset.
    blurred = ndimage.gaussian_filter((anatomy(positions(working)) - span.low) / (span.high - span.low), 1.0)
    reconstruction = np.where(inside, 0.15 + 0.7 * blurred, 0).astype(np.float32)
    image = (resample(data, native, working) - span.low) / (span.high - span.low)
    image = np.where(inside, np.clip(image, 0, 1), 0).astype(np.float32)
    flat = np.zeros_like(image)
    scan = WorkingScan(image, inside, working, native, brain, np.eye(4), span, flat, b"the content of the scan")
    return Patient(Volume(data, affine), healthy, brain, lesion, scan, reconstruction)


@pytest.fixture(scope="module")
def patient() -> Patient:
    return make_patient()


@pytest.fixture(scope="module")
def filling(patient: Patient) -> Filling:
    return patient.fill()


def values(filling: Filling) -> FloatArray:
    return np.asarray(filling.scan.image().dataobj, dtype=np.float32)


def nifti_bytes(raw: npt.NDArray[Any], affine: npt.NDArray[np.float64], slope: float, inter: float) -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(raw.dtype)
    header.set_data_shape(raw.shape)
    header.set_sform(affine, code=2)
    header.set_qform(affine, code=1)
    header.set_slope_inter(slope, inter)
    header["vox_offset"], header["magic"], header["descrip"] = 384, b"n+1", b"of the scanner"
    return bytes(header.binaryblock) + b"\0" * 36 + raw.tobytes(order="F") + b"more"


@pytest.mark.parametrize(
    ("dtype", "slope", "inter"),
    [("<i2", 1.0, 0.0), ("u1", 1.0, 0.0), ("<f4", 1.0, 0.0), ("<f4", 2.5, -7.0), ("<i2", 0.125, 3.0)],
)
def test_outside_the_region_the_file_is_the_input_to_the_last_bit(
    tmp_path: Path, dtype: str, slope: float, inter: float
) -> None:
    patient, path = make_patient(OBLIQUE, (56, 60, 48)), tmp_path / "scan.nii.gz"
    stored = np.clip((patient.volume.data / (2.5 if dtype == "u1" else 1) - inter) / slope, 0, 30000)
    before = nifti_bytes((stored if dtype == "<f4" else np.rint(stored)).astype(dtype), OBLIQUE, slope, inter)
    path.write_bytes(gzip.compress(before))
    volume = read_volume(path)
    filling = fill_mask_in(
        cast("Predictor", Networks()),
        volume,
        StoredScan.of(volume, path),
        patient.scan,
        patient.reconstruction,
        patient.lesion,
    )
    after = filling.scan.raw
    assert len(after) == len(before)
    size = np.dtype(dtype).itemsize
    voxels = slice(384, 384 + size * patient.lesion.size)
    assert after[: voxels.start] == before[: voxels.start]
    assert after[voxels.stop :] == before[voxels.stop :] == b"more"
    old, new = (np.frombuffer(raw[voxels], f"V{size}").reshape(volume.shape, order="F") for raw in (before, after))
    changed = old != new
    assert not changed[~filling.region].any()
    assert changed[patient.lesion].mean() > 0.8
    assert (gzip.decompress(filling.scan.packed()), filling.scan.image().get_data_dtype()) == (after, np.dtype(dtype))


def test_the_filled_tissue_lies_within_the_scan(patient: Patient, filling: Filling) -> None:
    inside = values(filling)[filling.region]
    healthy = patient.volume.data[patient.brain & ~patient.lesion]
    assert np.isfinite(inside).all()
    assert healthy.min() <= inside.min()
    assert inside.max() <= patient.volume.data.max()
    assert abs(inside.mean() - patient.healthy[filling.region].mean()) < 10


def test_the_lesion_is_replaced_by_what_was_there_before(patient: Patient, filling: Filling) -> None:
    deep = ndimage.binary_erosion(patient.lesion, iterations=2)
    filled, truth = (ndimage.gaussian_filter(image, 1.5) for image in (values(filling), patient.healthy))
    off = np.abs(filled - truth)[deep].mean()
    plain = np.abs(ndimage.gaussian_filter(patient.scan.reconstruction_to_native(patient.reconstruction), 1.5) - truth)
    assert off < 8
    assert off < 0.5 * plain[deep].mean(), "matching contrast and offset must help"


def jump(image: FloatArray, inside: MaskArray, outside: MaskArray) -> float:
    """Return the mean difference of neighbours, one in each mask."""
    steps = []
    for axis in range(3):
        for direction in (-1, 1):
            other = np.roll(image, direction, axis=axis)
            steps.append(np.abs(image - other)[inside & np.roll(outside, direction, axis=axis)])
    return float(np.concatenate(steps).mean())


def test_there_is_no_seam(patient: Patient, filling: Filling) -> None:
    tissue = patient.brain & ~filling.region
    around = tissue & grow(filling.region, 10, patient.volume.spacing_mm)
    usual = jump(patient.volume.data, around, around)
    assert jump(values(filling), filling.region, around) < usual
    assert jump(patient.volume.data, patient.lesion, patient.brain & ~patient.lesion) > 5 * usual


def high(image: FloatArray, where: MaskArray) -> float:
    return float((image - ndimage.gaussian_filter(image, 1.0))[where].std())


def test_noise_and_sharpness_are_those_of_the_surroundings(patient: Patient, filling: Filling) -> None:
    deep = ndimage.binary_erosion(filling.region, iterations=2)
    found, true = high(values(filling), deep), high(patient.healthy, deep)
    assert 0.8 < found / true < 1.25
    smooth = patient.scan.reconstruction_to_native(patient.reconstruction)
    assert high(smooth, deep) < 0.4 * true, "a reconstruction as it is would show as a flat patch"
    assert 0.4 * NOISE < filling.noise < 1.2 * NOISE


def test_the_noise_depends_on_seed_and_content_alone(patient: Patient, filling: Filling) -> None:
    assert patient.fill().scan.raw == filling.scan.raw
    other = patient.fill(Networks(seed=1))
    assert other.scan.raw != filling.scan.raw
    assert (other.region == filling.region).mean() > 0.99


def test_nothing_to_fill_gives_the_scan_itself(patient: Patient) -> None:
    stored = StoredScan.of(patient.volume, Path("unused.mgz"))
    filling = patient.fill(mask=np.zeros_like(patient.lesion), stored=stored)
    assert filling.scan.raw == stored.raw
    assert (filling.filled_ml, filling.mask_ml, filling.left_out_ml, filling.noise) == (0, 0, 0, 0)


def test_a_mask_outside_the_brain_is_not_filled_and_counted(patient: Patient) -> None:
    mask = patient.lesion.copy()
    mask[:4] = True
    outside = (mask & ~patient.brain).sum()
    filling = patient.fill(mask=mask)
    assert filling.left_out_ml == pytest.approx(outside * 1.5**3 / 1000)
    assert not filling.region[~patient.brain].any()


def test_fluid_beside_a_bright_lesion_stays(patient: Patient) -> None:
    data = patient.volume.data.copy()
    beside = grow(patient.lesion, MARGIN_MM, patient.volume.spacing_mm) & ~patient.lesion
    beside[: beside.shape[0] // 2] = False
    data[beside] = 20
    scan = make_patient()
    scan.volume = Volume(data, STRAIGHT)
    filling = scan.fill()
    assert not (filling.region & beside).any()
    assert filling.region[patient.lesion].all()
    assert (values(filling)[beside] == 20).all()


def test_a_network_that_fills_holes_gets_the_region_as_a_hole(patient: Patient) -> None:
    networks = Networks(holes=patient.reconstruction)
    filling = patient.fill(networks)
    assert filling.by_holes
    assert networks.asked is not None
    covered = patient.scan.mask_from_native(filling.region)
    assert networks.asked[covered].all()
    assert networks.asked.sum() < 5 * covered.sum()
    deep = ndimage.binary_erosion(patient.lesion, iterations=2)
    off = np.abs(ndimage.gaussian_filter(values(filling) - patient.healthy, 1.5))
    assert off[deep].mean() < 12


def test_a_mask_grows_in_millimetres() -> None:
    mask = np.zeros((11, 11, 11), dtype=bool)
    mask[5, 5, 5] = True
    grown = grow(mask, 2.0, (1.0, 0.5, 5.0))
    assert [int(grown.any(axis=other).sum()) for other in ((1, 2), (0, 2), (0, 1))] == [5, 9, 1]
    np.testing.assert_array_equal(grow(mask, 0.0, (1.0, 1.0, 1.0)), mask)
