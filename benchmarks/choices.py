"""Noise levels, residual map, its weight, smoothing across slices: which a model should have, by validation scans only.

Every scan of the split "val" goes through both networks once at each level; all combinations are scored from that, on
the working grid: mean voxel AUPRC over annotated scans, and the share of lesion voxels found at the threshold that
calls 1 ml in the median healthy scan of the same modality.

    python benchmarks/choices.py --model general/stage2/model --manifest cohort/manifest.tsv --cache cache
"""

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from halebrain.core.config import parse_config
from halebrain.core.modality import standard_modality
from halebrain.core.progress import track
from halebrain.core.types import SLICE_AXIS, FloatArray, MaskArray
from halebrain.data.slices import SliceStore, build_store
from halebrain.evaluation.curve import Curve
from halebrain.inference.anomaly_map import filter_residual, residual_map, smooth_through_plane
from halebrain.inference.predictor import Predictor
from halebrain.io.manifest import Manifest
from halebrain.models.store import load_model
from halebrain.preprocessing.pipeline import PreprocessingConfig
from halebrain.thresholds.scored_map import ScoredMap

LEVELS = (150, 300, 400)
SETS = ((150,), (300,), (400,), (150, 300), (300, 400), (150, 300, 400))
RESIDUALS = ("absolute", "positive", "ssim")
ACROSS_MM = ((0.0,), (8.0,), (3.0, 16.0))
"""Widths of the Gaussian across slices, or of two (`through_plane_mm`, `through_plane_sigma_wide_mm`)."""
WEIGHTS = (0.0, 0.15, 0.3, 0.5, 0.7, 1.0)
VOXEL_MM3 = 8.0


@dataclass(frozen=True)
class Looked:
    """One scan at every level; all `(n, h, w)` but the modality and the disease."""

    image: FloatArray
    brain_mask: MaskArray
    lesion: MaskArray
    reconstruction: dict[int, FloatArray]
    probability: dict[int, FloatArray]
    modality: str
    pathology: str


def look(predictor: Predictor, store: SliceStore, levels: tuple[int, ...] = LEVELS) -> Iterator[Looked]:
    """Run both networks over each scan of `store` at every one of `levels`."""
    for index, record in enumerate(track(store.records, description="Scans", total=len(store))):
        image, labels = np.asarray(store.images[index], dtype=np.float32), np.asarray(store.labels[index])
        slices, mask = torch.from_numpy(image)[:, None], torch.from_numpy(labels > 0)[:, None]
        scan = cast(Any, SimpleNamespace(content=f"{record.subject} {record.modality}".encode()))
        reconstruction, probability = {}, {}
        for level in levels:
            seeds = predictor.slice_seeds(scan, level, 0, torch.arange(len(slices)))
            healthy, anomaly = predictor.run_level(slices, mask, level, seeds, standard_modality(record.modality))
            reconstruction[level], probability[level] = healthy[:, 0].numpy(), anomaly[:, 0].numpy()
        yield Looked(
            image, labels > 0, labels > 1, reconstruction, probability, record.modality, record.pathology or "healthy"
        )


def scores(
    scan: Looked, levels: tuple[int, ...], residual: str, median_size: int, across_mm: tuple[float, ...] = ()
) -> dict[float, FloatArray]:
    """Return the fused score of one combination at each weight."""
    mean = np.mean([scan.reconstruction[level] for level in levels], axis=0)
    probability = np.mean([scan.probability[level] for level in levels], axis=0)
    # Slices come first here, and are 2 mm apart.
    narrow, wide = (*(mm / 2 for mm in across_mm), 0.0, 0.0)[:2]
    volume, inside = (np.moveaxis(array, 0, SLICE_AXIS) for array in (probability, scan.brain_mask))
    smooth = smooth_through_plane(volume, inside, sigma_voxels=narrow, around_voxels=wide)
    probability = np.moveaxis(smooth, SLICE_AXIS, 0)
    found = residual_map(torch.from_numpy(scan.image)[:, None], torch.from_numpy(mean)[:, None], residual)[:, 0]
    smooth = filter_residual(found.numpy(), scan.brain_mask, median_size)
    return {weight: np.float32(weight) * smooth + np.float32(1 - weight) * probability for weight in WEIGHTS}


def judge(
    scans: list[Looked], levels: tuple[int, ...], residual: str, median_size: int, across_mm: tuple[float, ...]
) -> list[list[Any]]:
    """Return one row a weight and modality: mean AUPRC, lesion found at 1 ml, and AUPRC by disease."""
    maps = [scores(scan, levels, residual, median_size, across_mm) for scan in scans]
    rows = []
    for weight, modality in itertools.product(WEIGHTS, sorted({scan.modality for scan in scans})):
        mine = [(scan, own[weight]) for scan, own in zip(scans, maps, strict=True) if scan.modality == modality]
        limits = [
            ScoredMap(
                score, s.brain_mask, voxel_mm3=VOXEL_MM3, min_lesion_mm3=30, modality=modality, scan_score=0
            ).lowest_threshold(1.0)
            for s, score in mine
            if s.pathology == "healthy"
        ]
        threshold = float(np.median(limits)) if limits else float("nan")
        auprc: dict[str, list[float]] = {}
        found = []
        for scan, score in mine:
            if not scan.lesion.any():
                continue
            curve = Curve.of(score[scan.brain_mask], scan.lesion[scan.brain_mask])
            auprc.setdefault(scan.pathology, []).append(curve.average_precision)
            found.append(float((score[scan.lesion] >= threshold).mean()))
        flat = [value for values in auprc.values() for value in values]
        by_disease = " ".join(f"{name} {np.mean(values):.3f}" for name, values in sorted(auprc.items()))
        levels_said = "+".join(map(str, levels))
        chosen = [modality, levels_said, residual, weight, "+".join(f"{mm:g}" for mm in across_mm)]
        rows.append([*chosen, np.mean(flat), np.mean(found), threshold, by_disease])
    return rows


def reconstruction_errors(scans: list[Looked]) -> None:
    """Print how far the reconstruction is from the scan where there is no lesion, at each level."""
    for level in scans[0].reconstruction:
        outside = [np.abs(s.image - s.reconstruction[level])[s.brain_mask & ~s.lesion].mean() for s in scans]
        inside = [np.abs(s.image - s.reconstruction[level])[s.lesion].mean() for s in scans if s.lesion.any()]
        print(f"level {level}: |x − x̂| outside lesions {np.mean(outside):.4f}, inside {np.mean(inside):.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True, nargs="+")
    parser.add_argument("--cache", type=Path, required=True, help="Folder of preprocessed slices; made where absent.")
    parser.add_argument("--per-disease", type=int, default=3, help="Subjects of each disease and manifest.")
    parser.add_argument("--modality", nargs="+", default=["T1w", "T2w", "FLAIR"])
    parser.add_argument("--sets", nargs="+", default=["+".join(map(str, s)) for s in SETS], help="As 300+400.")
    parser.add_argument("--residuals", nargs="+", default=RESIDUALS)
    parser.add_argument("--across-mm", nargs="+", default=["+".join(map(str, s)) for s in ACROSS_MM], help="As 3+16.")
    parser.add_argument("--output", type=Path, required=True, help="Table (TSV) of all combinations.")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bundle = load_model(arguments.model)
    records = []
    for path in arguments.manifest:
        rows = [r for r in Manifest.read(path).split("val") if r.modality in arguments.modality]
        for disease in sorted({r.pathology or "healthy" for r in rows}):
            subjects = sorted({r.subject for r in rows if (r.pathology or "healthy") == disease})
            records += [r for r in rows if r.subject in subjects[: arguments.per_disease]]
    config = parse_config(PreprocessingConfig, bundle.config.preprocessing, where="model")
    store = build_store(Manifest(tuple(records), source=None), config, arguments.cache, description="scans")
    sets = [tuple(map(int, text.split("+"))) for text in arguments.sets]
    levels_seen = tuple(sorted({level for levels in sets for level in levels}))
    scans = list(look(Predictor(bundle), store, levels_seen))
    reconstruction_errors(scans)
    median_size = int(bundle.config.postprocessing.get("median_size", 5))
    table: list[list[Any]] = []
    across = [tuple(map(float, text.split("+"))) for text in arguments.across_mm]
    combinations = list(itertools.product(sets, arguments.residuals, across))
    for levels, residual, across_mm in track(combinations, description="Combinations"):
        table += judge(scans, levels, residual, median_size, across_mm)
    table.sort(key=lambda row: (row[0], -row[5]))
    header = [
        "modality",
        "levels",
        "residual",
        "weight",
        "across_mm",
        "auprc",
        "found_at_1_ml",
        "threshold",
        "by_disease",
    ]
    lines = ["\t".join(f"{v:.4f}" if isinstance(v, float) else str(v) for v in row) for row in [header, *table]]
    arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for modality in arguments.modality:
        print("\n".join([line for line in lines if line.startswith(modality)][:8]))


if __name__ == "__main__":
    main()
