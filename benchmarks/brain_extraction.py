"""Dice of a brain extractor with masks that others made, over real heads and heads painted from label maps.

The folder is the one that the tests use (HALEBRAIN_TEST_DATA). Four kinds of truth:

- MSLUB patient 04 (T1, T2, FLAIR): the publisher's brain mask in the common space, brought by its transforms;
- TCGA-LGG FG-6692 (T1, T2, FLAIR, 5.5 mm): the publisher's stripped brain in SRI24 space, registered to the raw scan;
- six T1 of IXI (2 mm): the outline of DLMUSE's automatic labels;
- five label maps of whole heads (Billot et al. 2023), painted as T1, T2 and FLAIR with blur, a bias field and noise.
  Their CSF around the brain is a layer of its own outside of the truth; masks of real heads hold some of it.

The eight whole heads without a mask (T1 and T2 of one person) are compared with another extractor's mask where
`--reference` names one. Their table of T1 against T2 follows: one person has one brain volume. Columns:

- volume: the mask's as a share of the reference's;
- cut: ml of the reference that the mask leaves out;
- ring: ml as bright as grey matter (0.65 to 0.95 of the brain's median in T1) within 2 mm outside of the mask.
  Masks by deepbet have 4 to 12 ml (dura, veins); a mask that cuts gyri has more.

    python benchmarks/brain_extraction.py --data FOLDER --output OUT [--extractor atlas] [--reference deepbet]
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from halebrain.core.errors import HalebrainError
from halebrain.core.random import derive_seed
from halebrain.core.types import MaskArray, Volume
from halebrain.io.volume import read_array, read_volume
from halebrain.preprocessing.brain import BRAIN_EXTRACTORS
from halebrain.preprocessing.brain.base import volume_ml
from halebrain.preprocessing.geometry import Grid, resample
from halebrain.preprocessing.itk import LPS, matrix_ras
from halebrain.preprocessing.registration import register_to_template

Case = tuple[str, Volume, MaskArray | None]

# Relative intensities: white matter, cortex, deep grey, CSF, bone, marrow, soft tissue, skin and fat, eyes, veins.
CONTRASTS = {
    "T1w": (1.0, 0.70, 0.82, 0.25, 0.08, 0.55, 0.55, 0.95, 0.25, 0.35),
    "T2w": (0.42, 0.58, 0.48, 1.00, 0.06, 0.40, 0.35, 0.60, 1.00, 0.20),
    "FLAIR": (0.60, 0.78, 0.70, 0.12, 0.05, 0.40, 0.45, 0.70, 0.15, 0.25),
}
LABELS: dict[int, tuple[int, ...]] = {
    0: (2, 7, 16, 28, 41, 46, 60, 85, 512),
    1: (3, 8, 17, 18, 42, 47, 53, 54, 136, 137, 163, 164, 25, 57),
    2: (10, 11, 12, 13, 26, 49, 50, 51, 52, 58),
    3: (4, 5, 14, 15, 24, 43, 44, 30, 62, 72),
    4: (515,),
    5: (516,),
    6: (507, 509, 502, 508),
    7: (511,),
    8: (506, 530),
    9: (514,),
}
_RING_MM, _GREY = 2.0, (0.65, 0.95)
OUTSIDE = {0, 24, 85, *range(500, 600)}


def mslub(data: Path) -> Iterator[Case]:
    """Yield the three raw scans of patient 04."""
    folder = data / "ms_mslub" / "longitudinal_patient04_raw"
    mask, affine = read_array(folder / "commonspace_brainmask.nii.gz")
    to_common = _itk_matrix(folder / "study1_FLAIR_to_common_space.txt")
    for name in ("T1W", "T2W", "FLAIR"):
        volume = read_volume(folder / f"study1_{name}.nii.gz")
        # Each file maps points of its target to points of its source, as ITK resamples.
        within = np.eye(4) if name == "FLAIR" else _itk_matrix(folder / f"study1_{name}_intrastudy_to_FLAIR.txt")
        native_to_common = np.linalg.inv(within @ to_common)
        truth = mask_on_grid(mask, affine, volume, native_to_common)
        yield f"MSLUB patient 04 {name}", volume, truth


def glioma(data: Path, find: Callable[[Volume], MaskArray]) -> Iterator[Case]:
    """Yield the raw scans of FG-6692; the stripped ones are registered to them near the brain."""
    folder = data / "tumour_tcga_lgg_FG-6692"
    for raw_word, stripped_word, name in (
        ("T1_AX_Other", "t1", "T1"),
        ("T2_AX", "t2", "T2"),
        ("FLAIR_AX", "fla", "FLAIR"),
    ):
        raw_path = next(p for p in sorted((folder / "raw").iterdir()) if raw_word in p.name)
        volume = read_volume(raw_path)
        stripped = read_volume(folder / "sri24_1mm_bet" / f"OtherEXampleFromTCIA_{stripped_word}_bet.nii.gz")
        native_to_sri = register_stripped(volume, find(volume), stripped)
        truth = mask_on_grid((stripped.data > 0).astype(np.float32), stripped.affine, volume, native_to_sri)
        yield f"TCGA-LGG FG-6692 {name}", volume, truth


def ixi(data: Path) -> Iterator[Case]:
    """Yield six T1 of IXI with the outline of their labels."""
    for path in sorted((data / "healthy_wholehead_t1_2mm_ixi").glob("*_T1.nii.gz")):
        volume = read_volume(path)
        labels, affine = read_array(path.with_name(path.name.replace("_T1", "_desc-dlmuse_dseg")))
        yield path.name.removesuffix(".nii.gz"), volume, mask_on_grid(labels > 0, affine, volume, np.eye(4))


def painted(data: Path) -> Iterator[Case]:
    """Yield whole heads painted from label maps, and the hull of their brain labels."""
    for path in sorted((data / "labelmaps_synthseg").glob("training_seg_*.nii.gz")):
        image = nibabel.as_closest_canonical(nibabel.load(path))
        labels, affine = np.asarray(image.dataobj).astype(np.int32), np.asarray(image.affine, dtype=np.float64)
        brain = ~np.isin(labels, list(OUTSIDE))
        closed = ndimage.binary_closing(np.pad(brain, 8), ndimage.generate_binary_structure(3, 1), iterations=5)
        hull = ndimage.binary_fill_holes(closed)[8:-8, 8:-8, 8:-8]
        for contrast, values in CONTRASTS.items():
            yield f"{path.name[:15]} as {contrast}", _paint(labels, affine, values, f"{path.stem} {contrast}"), hull


def whole_heads(data: Path, find: Callable[[Volume], MaskArray] | None = None) -> Iterator[Case]:
    """Yield the whole heads that have no mask; those in T1 with the one that `find` gives."""
    for path in sorted((data / "healthy_wholehead_t1_t2_ds000011").glob("*.nii.gz")):
        volume = read_volume(path)
        truth = find(volume) if find is not None and "T1w" in path.name else None
        yield path.name.removesuffix(".nii.gz"), volume, truth


def _paint(labels: Any, affine: Any, values: tuple[float, ...], name: str) -> Volume:
    rng = np.random.default_rng(derive_seed(0, name))
    data = np.zeros(labels.shape, dtype=np.float32)
    for index, members in LABELS.items():
        data[np.isin(labels, members)] = values[index]
    bias = ndimage.zoom(rng.normal(0, 0.12, (4, 4, 4)), np.array(labels.shape) / 4, order=3)
    data = ndimage.gaussian_filter(data, 0.6) * np.exp(bias)
    noisy = np.hypot(data + rng.normal(0, 0.02, data.shape), rng.normal(0, 0.02, data.shape))
    return Volume(noisy.astype(np.float32), affine, name=name)


def _itk_matrix(path: Path) -> Any:
    values = {
        key: [float(number) for number in rest.split()]
        for key, _, rest in (line.partition(":") for line in path.read_text().splitlines() if ":" in line)
        if key in ("Parameters", "FixedParameters")
    }
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(values["Parameters"][:9])
    transform.SetTranslation(values["Parameters"][9:])
    transform.SetCenter(values["FixedParameters"])
    return matrix_ras(transform)


def mask_on_grid(mask: Any, affine: Any, volume: Volume, native_to_mask: Any) -> MaskArray:
    """Return a mask of another space on the grid of a scan."""
    source = Grid(mask.shape, affine)
    return resample(mask, source, Grid(volume.shape, volume.affine), target_to_source=native_to_mask) > 0.5


def register_stripped(volume: Volume, brain: MaskArray, stripped: Volume) -> Any:
    """Return native-to-SRI24: through the template first, then by mutual information near the brain."""
    first = register_to_template(volume, brain).template_to_native
    second = register_to_template(stripped, stripped.data > 0).template_to_native
    start = second @ np.linalg.inv(first)
    fixed, moving = _itk_image(volume), _itk_image(stripped)
    near = ndimage.binary_dilation(brain, iterations=2)
    region = _itk_image(Volume(near.astype(np.float32), volume.affine))
    lps = LPS @ start @ LPS
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(lps[:3, :3].flatten().tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricFixedMask(sitk.Cast(region, sitk.sitkUInt8))
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(0.5, 1e-3, 60, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)
    return matrix_ras(transform)


def _itk_image(volume: Volume) -> Any:
    """Return an ITK image of any scan, oblique ones too."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.data.transpose(2, 1, 0)))
    lps = LPS @ volume.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).flatten().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def ring_ml(volume: Volume, mask: MaskArray) -> float:
    """Return the volume within 2 mm outside of a mask that is as bright as grey matter in T1."""
    median = float(np.median(volume.data[mask])) if mask.any() else 0.0
    near = ~mask & (ndimage.distance_transform_edt(~mask, sampling=volume.spacing_mm) <= _RING_MM)
    low, high = _GREY
    return volume_ml(near & (volume.data > low * median) & (volume.data < high * median), volume)


def compare(volume: Volume, mask: MaskArray, truth: MaskArray | None) -> tuple[float | None, str]:
    """Return the Dice with the truth, and the cells of a row: Dice, share of the volume, what is cut."""
    if truth is None:
        return None, "– | – | –"
    dice = 2 * float((mask & truth).sum()) / float(mask.sum() + truth.sum())
    return dice, f"{dice:.3f} | {mask.sum() / truth.sum():.3f} | {volume_ml(truth & ~mask, volume):.0f}"


def print_ratios(volumes: dict[str, float]) -> None:
    """Print the volume in T1 against that in T2 of each person who has both."""
    ratios = {name: ml / volumes.get(name.replace("_T1w", "_inplaneT2"), np.nan) for name, ml in volumes.items()}
    ratios = {name: ratio for name, ratio in ratios.items() if "_T1w" in name and np.isfinite(ratio)}
    if ratios:
        print("\n| person | volume in T1 / in T2 |\n|---|---|")
        for name, ratio in ratios.items():
            print(f"| {name.removesuffix('_T1w')} | {ratio:.3f} |")
        print(f"| mean of {len(ratios)} | {np.mean(list(ratios.values())):.3f} |")


def _draw(volume: Volume, mask: MaskArray, truth: MaskArray | None, title: str, path: Path) -> None:
    figure, axes = plt.subplots(1, 6, figsize=(18, 3.4))
    middle = [int(np.median(v)) for v in np.nonzero(mask)] if mask.any() else [n // 2 for n in volume.shape]
    top = float(np.percentile(volume.data, 99.5))
    for index, axis in enumerate(axes):
        plane, shift = index % 3, (0.0, 0.18)[index // 3]
        at = min(int(middle[plane] + shift * volume.shape[plane]), volume.shape[plane] - 1)
        step = [s for i, s in enumerate(volume.spacing_mm) if i != plane]
        show = [np.take(a, at, axis=plane).T for a in (volume.data, mask, mask if truth is None else truth)]
        axis.imshow(show[0], cmap="gray", vmin=0, vmax=top, origin="lower", aspect=step[1] / step[0])
        if truth is not None and show[2].any():
            axis.contour(show[2], [0.5], colors="lime", linewidths=0.7)
        if show[1].any():
            axis.contour(show[1], [0.5], colors="red", linewidths=0.7)
        axis.axis("off")
    figure.suptitle(title)
    figure.savefig(path, dpi=70, bbox_inches="tight")
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--extractor", default="atlas", choices=BRAIN_EXTRACTORS.names())
    parser.add_argument("--reference", choices=BRAIN_EXTRACTORS.names(), help="For whole T1 heads without a mask.")
    parser.add_argument("--only", default="", help="Part of a case's name.")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    extract = BRAIN_EXTRACTORS.get(arguments.extractor)
    reference = None if arguments.reference is None else BRAIN_EXTRACTORS.get(arguments.reference)
    find = None if reference is None else lambda v: reference(v).mask
    print(
        "| scan | Dice | volume | cut, ml | ring, ml | confidence | ml | seconds |\n|---|---|---|---|---|---|---|---|"
    )
    dices: list[float] = []
    volumes: dict[str, float] = {}
    sources = (mslub(arguments.data), glioma(arguments.data, lambda v: extract(v).mask), ixi(arguments.data))
    for source in (*sources, painted(arguments.data), whole_heads(arguments.data, find)):
        for name, volume, truth in source:
            if arguments.only not in name:
                continue
            start = time.perf_counter()
            try:
                found = extract(volume)
            except HalebrainError as error:
                print(f"| {name} | refused: {error} | | | | | | {time.perf_counter() - start:.0f} |", flush=True)
                continue
            seconds = time.perf_counter() - start
            dice, cells = compare(volume, found.mask, truth)
            if dice is not None:
                dices.append(dice)
            volumes[name] = found.volume_ml
            figures = f"{ring_ml(volume, found.mask):.0f} | {found.confidence:.2f} | {found.volume_ml:.0f}"
            print(f"| {name} | {cells} | {figures} | {seconds:.0f} |", flush=True)
            _draw(volume, found.mask, truth, f"{name}: {cells}", arguments.output / f"{name.replace(' ', '_')}.png")
    if dices:
        print(f"| mean of {len(dices)} | {np.mean(dices):.3f} (lowest {min(dices):.3f}) | | | | | | |")
    print_ratios(volumes)


if __name__ == "__main__":
    main()
