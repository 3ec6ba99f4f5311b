"""Voxel AUPRC of the residual alone, raw and normalised by a healthy map, beside the z-score of intensities.

The map and the atlas of the z-score are fitted on the same healthy scans. Only the reconstructor runs, on slices in a
cache as trainings make it, so a scan takes a second. Scores are compared with the lesion in the brain, on the working
grid. The last rows are the means of the patients of each disease, and of all.

    halebrain cohort -o virtual --subjects 60 --patients 4 --seed 907 --variety wide
    python benchmarks/healthy_residual.py --healthy virtual/manifest.tsv --patients virtual/manifest.tsv \
        --split val --modality FLAIR --cache cache

`--data FOLDER` adds the two real patients of the tests (`benchmarks/real_patients.py`).
"""

import argparse
from pathlib import Path

import numpy as np

from halebrain.core.failures import Failures
from halebrain.core.modality import lesions_are_dark
from halebrain.core.types import SLICE_AXIS, FloatArray, MaskArray
from halebrain.data.slices import build_store
from halebrain.evaluation.baselines import AtlasModel, baseline_map
from halebrain.evaluation.curve import Curve
from halebrain.inference.predictor import Predictor
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.models.store import load_model
from halebrain.preprocessing.intensity import IntensityRange
from halebrain.preprocessing.pipeline import WorkingScan
from halebrain.workflows.healthy_map import fit_healthy_map
from real_patients import real_patients

RESIDUALS = ("absolute", "signed", "ssim", "normalised", "normalised_signed")
BASELINES = ("intensity rank", "atlas z-score", "atlas z-score signed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--healthy", type=Path, required=True, help="Manifest; its healthy scans make the map.")
    parser.add_argument("--patients", type=Path, help="Manifest; its annotated scans count.")
    parser.add_argument("--split", default="val", help="Of both; all = every scan.")
    parser.add_argument("--data", type=Path, help="Folder of the real patients.")
    parser.add_argument("--model", type=Path, help="Folder, zip or name; default: the bundled one.")
    parser.add_argument("--modality", required=True, help="T1w, T2w or FLAIR.")
    parser.add_argument("--cache", type=Path, required=True, help="Folder of preprocessed slices.")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    def rows_of(path: Path) -> Manifest:
        table = Manifest.read(path).of_contrasts((arguments.modality,))
        return table if arguments.split == "all" else table.split(arguments.split)

    predictor = Predictor(load_model(arguments.model), seed=arguments.seed)
    healthy = rows_of(arguments.healthy).select(lambda record: record.is_healthy)
    scans = read_scans(predictor, healthy, arguments.cache)
    fit = fit_healthy_map(
        predictor, healthy, failures=Failures(None), notify=print, read=lambda record: scans[record.scan_id][0]
    )
    atlas = AtlasModel.fit((scan.image, scan.brain_mask) for scan, _ in scans.values())
    predictor = predictor.with_healthy_map(fit.fitted)
    size = len(fit.fitted.to_bytes()) / 1e6
    print(f"map of {arguments.modality}: {len(healthy)} healthy scans, {size:.2f} MB", flush=True)
    rows = [] if arguments.data is None else [*real_patients(arguments.data).of_contrasts((arguments.modality,))]
    if arguments.patients is not None:
        rows += rows_of(arguments.patients).select(lambda record: record.is_annotated)
    print(f"| scan | {' | '.join((*RESIDUALS, *BASELINES))} |", flush=True)
    print("|---" * (len(RESIDUALS) + len(BASELINES) + 1) + "|")
    found: dict[str, list[list[float]]] = {}
    for record in rows:
        scan, lesion = read_scans(predictor, Manifest((record,)), arguments.cache)[record.scan_id]
        if not lesion.any():
            print(f"{record.scan_id}: no lesion on the working grid")
            continue
        values = measure(predictor, record, scan, lesion, atlas)
        place = "virtual" if record.healthy is not None else "real"
        for name in (f"{place}, {record.pathology}", f"{place}, all"):
            found.setdefault(name, []).append(values)
        print(f"| {record.scan_id} | {' | '.join(f'{value:.3f}' for value in values)} |", flush=True)
    for name, each in sorted(found.items()):
        print(f"| **{name}** ({len(each)}) | {' | '.join(f'{value:.3f}' for value in np.mean(each, axis=0))} |")


def read_scans(predictor: Predictor, rows: Manifest, cache: Path) -> dict[str, tuple[WorkingScan, MaskArray]]:
    """Return name → scan on the working grid, without slices that show little brain, and its lesion."""
    preprocessor = predictor.preprocessor
    store, grid = (
        build_store(rows, preprocessor.config, cache, description="Scans", with_levels=True),
        preprocessor.grid,
    )
    found = {}
    for images, labels, levels, record in zip(store.images, store.labels, store.levels, store.records, strict=True):
        image, label = np.zeros(grid.shape, np.float32), np.zeros(grid.shape, np.uint8)
        image[..., levels] = np.moveaxis(np.asarray(images, dtype=np.float32), 0, SLICE_AXIS)
        label[..., levels] = np.moveaxis(np.asarray(labels), 0, SLICE_AXIS)
        brain = label > 0
        scan = WorkingScan(
            *(image * brain, brain, grid, grid, brain, np.eye(4), IntensityRange(0.0, 1.0, 0.0)),
            log_bias=np.zeros(grid.shape, np.float32),
            content=record.scan_id.encode(),
        )
        found[record.scan_id] = (scan, label > 1)
    return found


def measure(
    predictor: Predictor, record: ScanRecord, scan: WorkingScan, lesion: MaskArray, atlas: AtlasModel
) -> list[float]:
    """Return the AUPRC of each residual and baseline on one scan."""
    contrast, brain = record.contrast, scan.brain_mask
    reconstruction = predictor.reconstruct_levels(scan)["ensemble"]
    maps: list[FloatArray] = []
    for kind in RESIDUALS:
        raw = ("negative" if lesions_are_dark(contrast) else "positive") if kind == "signed" else kind
        maps.append(predictor.residual_alone(scan, reconstruction, contrast, raw))
    maps += [baseline_map(name, scan.image, brain, contrast, atlas=atlas) for name in BASELINES]
    return [Curve.of(score[brain], lesion[brain]).average_precision for score in maps]


if __name__ == "__main__":
    main()
