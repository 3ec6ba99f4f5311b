"""What a reconstruction heals and what it keeps, on virtual people whose true healthy twin and tissues are known.

For each contrast, means over scans of one split of a cohort that no training saw:

- removal 1 − τ over the lesion, τ = ⟨R(x) − R(h), x − h⟩ / ‖x − h‖², both reconstructed with the same noise;
- |R(h) − h| in the core of the brain, within 3 voxels of its edge, and in fluid;
- grey–white contrast of R(h) over that of h, and volume of the ventricles of R(h) over that of h;
- voxel AUPRC over the lesion: residual |x − R(x)| and the signed one (brighter; on T1w darker), beside their ceiling
  |(x − R(x)) − (h − R(h))|, the intensity rank, a signed atlas z-score (of the healthy training scans), and the
  segmenter;
- the same of the segmenter with the reconstruction of another subject in the pair ("shuffled"): that of the scan
  before, so the first scan of a contrast has no such figure.

R is what the model gives out as pseudo-healthy: of its second pass where it has one.

    halebrain cohort -o cohort --subjects 70 --patients 16 --seed 907 --prefix n --variety wide …
    python benchmarks/reconstruction.py --model general --manifest cohort/manifest.tsv --split val --output table.tsv
"""

import argparse
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from halebrain.core.progress import track
from halebrain.core.random import derive_seed
from halebrain.core.types import FloatArray, MaskArray
from halebrain.evaluation.baselines import DEFAULT, AtlasModel, baseline_map, lesions_are_dark
from halebrain.evaluation.curve import Curve
from halebrain.inference.anomaly_map import filter_residual
from halebrain.inference.predictor import Predictor
from halebrain.inference.scans import AnnotatedScan, open_annotated
from halebrain.inference.slice_networks import brain_slices, volume_of_slices
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.volume import read_volume
from halebrain.models.store import load_model
from halebrain.preprocessing.pipeline import Preprocessor
from halebrain.simulation.anatomy import CSF, GM, VENTRICLE, WM, build_anatomy
from halebrain.simulation.anatomy_source import load_base
from halebrain.simulation.config import grid_shape
from halebrain.simulation.generate import ANATOMIES, PARAMETERS
from halebrain.simulation.subject import SubjectParams
from halebrain.workflows.evaluate import fit_atlases

SPACING_MM, RIM_VOXELS = 2.0, 3
Row = dict[str, float]


@dataclass(frozen=True)
class Twin:
    """A scan and its true healthy twin, the same image where the person is healthy; tissues `(5, i, j, k)`."""

    annotated: AnnotatedScan
    healthy: FloatArray
    tissues: FloatArray


def open_twin(preprocessor: Preprocessor, record: ScanRecord, cohort: Path) -> Twin:
    """Return one scan of a virtual cohort with what is known of it."""
    annotated = open_annotated(preprocessor, record)
    scan = annotated.scan
    healthy = scan.image if record.healthy is None else scan.image_from_native(read_volume(record.healthy).data)
    text = (cohort / f"sub-{record.subject}" / PARAMETERS).read_text(encoding="utf-8")
    params = SubjectParams.model_validate_json(text).anatomy
    base = None if params.base is None else load_base(cohort / ANATOMIES, params.base)
    anatomy = build_anatomy(params, shape=grid_shape(SPACING_MM), spacing_mm=SPACING_MM, base=base)
    return Twin(annotated, healthy, anatomy.tissues.numpy())


def networks(predictor: Predictor, twin: Twin, image: FloatArray, other: FloatArray | None = None) -> list[FloatArray]:
    """Return reconstruction and probability, means over the levels, the same noise for every image of a person.

    `other` takes the place of the reconstruction in the pair.
    """
    record, scan = twin.annotated.record, replace(twin.annotated.scan, image=image)
    slices, mask, used = brain_slices(scan)
    sums = [torch.zeros(len(used), 1, *slices.shape[-2:]) for _ in range(2)]
    for level in predictor.levels:
        seeds = torch.tensor([derive_seed(0, record.scan_id.encode(), str(level), 0, int(k)) for k in used])
        given, inside = slices[used], mask[used]
        if other is None:
            reconstruction, probability = predictor.run_level(given, inside, level, seeds, record.contrast)
        else:
            reconstruction = torch.from_numpy(np.moveaxis(other, 2, 0).copy())[used][:, None]
            probability = predictor.segment_slices(given, inside, reconstruction, record.contrast)
        for total, found in zip(sums, (reconstruction, probability), strict=True):
            total += found / len(predictor.levels)
    first, probability = (volume_of_slices(total, used, image.shape) for total in sums)
    second = predictor.second_pass(
        scan, predictor.across_slices(probability, predictor.brain_above_cord(scan), record.contrast)
    )
    return [first if second is None else second, probability]


def identity(healthy: FloatArray, reconstruction: FloatArray, twin: Twin) -> Row:
    """Return what is kept of a healthy brain."""
    brain, tissues = twin.annotated.scan.brain_mask, twin.tissues
    fluid = (tissues[CSF] + tissues[VENTRICLE] > 0.5) & brain
    core = ndimage.binary_erosion(brain, iterations=RIM_VOXELS)
    error = np.abs(reconstruction - healthy)
    grey, white = ((tissues[tissue] > 0.8) & core for tissue in (GM, WM))
    contrast = [float(one[grey].mean() - one[white].mean()) for one in (reconstruction, healthy)]
    # Nearer to fluid than to white matter, within 3 voxels of the true ventricles.
    near = ndimage.binary_dilation(tissues[VENTRICLE] > 0.5, iterations=3) & core
    inside, middle = (tissues[VENTRICLE] > 0.9) & core, 0.0
    found = {
        "identity core": float(error[core & ~fluid].mean()),
        "identity rim": float(error[brain & ~core & ~fluid].mean()),
        "identity fluid": float(error[fluid].mean()),
        "grey-white": contrast[0] / contrast[1] if abs(contrast[1]) > 0.03 else float("nan"),
    }
    if inside.sum() > 50:
        middle = (float(healthy[inside].mean()) + float(healthy[white].mean())) / 2
        dark = healthy[inside].mean() < middle
        volumes = [float((((one < middle) == dark) & near).sum()) for one in (reconstruction, healthy)]
        found["ventricles"] = volumes[0] / volumes[1]
    return found


def judge(predictor: Predictor, twin: Twin, atlas: AtlasModel | None, other: FloatArray | None) -> Row:
    """Return every figure of one scan; `other` is the reconstruction of somebody else, `None` = there is none yet."""
    scan, record, lesion = twin.annotated.scan, twin.annotated.record, twin.annotated.lesion
    brain, image = scan.brain_mask, scan.image
    normal, _ = networks(predictor, twin, twin.healthy)
    found = identity(twin.healthy, normal, twin)
    inside = lesion & brain
    if record.is_healthy or not inside.any():
        return found
    given, probability = networks(predictor, twin, image)
    change = (image - twin.healthy)[inside].astype(np.float64)
    left = float(((given - normal)[inside] * change).sum() / max(float((change**2).sum()), 1e-9))
    found["removal"] = 1 - left
    sign, contrast = -1 if lesions_are_dark(record.contrast) else 1, record.contrast
    smooth = predictor.across_slices(probability, brain, contrast)
    size = predictor.postprocessing.median_size
    absolute, signed, ceiling = (
        filter_residual(residual, brain, size)
        for residual in (
            np.abs(image - given),
            np.maximum(sign * (image - given), 0),
            np.abs(given - normal + twin.healthy - image),
        )
    )
    maps = {
        "residual": absolute,
        "residual signed": signed,
        "ceiling": ceiling,
        "intensity rank": baseline_map(DEFAULT, image, brain, contrast),
        "segmenter": smooth,
    }
    if other is not None:
        maps["shuffled"] = predictor.across_slices(networks(predictor, twin, image, other)[1], brain, contrast)
    if atlas is not None:
        maps["atlas z signed"] = baseline_map("atlas z-score signed", image, brain, contrast, atlas=atlas)
    return found | {name: auprc(one, lesion, brain) for name, one in maps.items()}


def auprc(score: FloatArray, lesion: MaskArray, brain: MaskArray) -> float:
    """Return the voxel AUPRC within the brain."""
    return float(Curve.of(score[brain], lesion[brain]).average_precision)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--manifest", type=Path, required=True, help="Manifest of a virtual cohort.")
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--modality", nargs="+", default=["FLAIR", "T2w", "T1w"])
    parser.add_argument("--most", type=int, help="At most this many subjects of each disease.")
    parser.add_argument("--output", type=Path, required=True, help="Table (TSV): a line a scan and figure.")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    predictor = Predictor(load_model(arguments.model))
    manifest = Manifest.read(arguments.manifest)
    rows = [record for record in manifest.split(arguments.split) if record.modality in arguments.modality]
    subjects = defaultdict(set)
    for record in rows:
        subjects[record.pathology].add(record.subject)
    kept = {name for group in subjects.values() for name in sorted(group)[: arguments.most]}
    rows = [record for record in rows if record.subject in kept]
    atlases = fit_atlases(manifest, Manifest(tuple(rows), source=None), predictor.preprocessor)
    others: dict[str, FloatArray] = {}
    lines = ["scan\tcontrast\tpathology\tfigure\tvalue"]
    figures: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in track(rows, description="Scans"):
        twin = open_twin(predictor.preprocessor, record, arguments.manifest.parent)
        other = others.get(record.contrast)
        for name, value in judge(predictor, twin, atlases.get(record.contrast), other).items():
            lines.append(f"{record.scan_id}\t{record.contrast}\t{record.pathology}\t{name}\t{value:.5f}")
            figures[name, record.contrast].append(value)
        others[record.contrast] = networks(predictor, twin, twin.annotated.scan.image)[0]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"| figure | {' | '.join(arguments.modality)} |", "|---" * (1 + len(arguments.modality)) + "|", sep="\n")
    for name in dict.fromkeys(name for name, _ in figures):
        cells = [f"{np.nanmean(figures.get((name, one), [np.nan])):.3f}" for one in arguments.modality]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
