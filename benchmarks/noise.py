"""What another seed of the noise changes in a result, and what several draws bring, in virtual patients.

    python benchmarks/noise.py [--model MODEL] [--people 2] [--seeds 5] [--draws 2 4] [--seed 4711]

People of each of seven diseases in each contrast, none of whom was in a training. Figures are those of the working
grid; marked volumes are those at the model's default threshold there.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from halebrain.core.mask import Cut, to_mask
from halebrain.core.progress import track
from halebrain.core.types import TEMPLATE_SPACE, MaskArray, Volume
from halebrain.evaluation.curve import Curve
from halebrain.inference.predictor import Predictor
from halebrain.models.bundle import Bundle
from halebrain.models.store import load_model
from halebrain.preprocessing.geometry import resample_all
from halebrain.preprocessing.pipeline import WorkingScan
from halebrain.simulation.config import CohortConfig
from halebrain.simulation.subject import render_subject, sample_subject
from halebrain.thresholds.calibration import read_calibration
from halebrain.thresholds.choose import ThresholdSelector

DISEASES = ("tumour", "stroke", "ms", "wmh", "haemorrhage", "cavity", "mass")
_VOXEL_MM3 = 8.0


def patients(config: CohortConfig, predictor: Predictor) -> Iterator[tuple[str, WorkingScan, MaskArray]]:
    """Return contrast, preprocessed scan and truth of each scan of each patient."""
    people = [(disease, number) for disease in config.pathologies for number in range(config.patients)]
    for disease, number in track(people, description="Patients", total=len(people)):
        images = render_subject(
            sample_subject(f"{config.prefix}{disease}{number:03d}", disease, config), spacing_mm=config.spacing_mm
        )
        assert images.lesion is not None, "patients have lesions"
        grid, lesion = images.anatomy.grid, images.lesion.numpy().astype(np.float32)
        for contrast, image in images.scans.items():
            volume = Volume((1000 * image).numpy().astype(np.float32), grid.affine, name=contrast)
            mask = images.brain_mask.numpy().astype(bool)
            scan = predictor.preprocessor.run(volume, brain_mask=mask, space=TEMPLATE_SPACE)
            (truth,) = resample_all([lesion], scan.native, scan.grid, target_to_source=scan.template_to_native)
            yield contrast, scan, (truth > 0.5) & scan.brain_mask


def figures(predictor: Predictor, scan: WorkingScan, contrast: str, truth: MaskArray, cut: Cut) -> tuple[float, ...]:
    """Return the AUPRC, the marked volume in ml and how much of it is false."""
    score = predictor.predict_working(scan, contrast).score
    mask = to_mask(score, cut, voxel_mm3=_VOXEL_MM3)
    inside = scan.brain_mask
    ml = _VOXEL_MM3 / 1000
    return Curve.of(score[inside], truth[inside]).average_precision, mask.sum() * ml, (mask & ~truth).sum() * ml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="Folder, zip or name; default: the bundled one.")
    parser.add_argument("--people", type=int, default=2, help="Patients of each disease.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--draws", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--seed", type=int, default=4711, help="Of the cohort.")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    bundle: Bundle = load_model(given.model)
    selector = ThresholdSelector(read_calibration(bundle))
    config = CohortConfig(variety="wide", seed=given.seed, prefix="noise", pathologies=DISEASES, patients=given.people)
    once = [Predictor(bundle, seed=seed) for seed in range(given.seeds)]
    several = [Predictor(bundle, draws=draws) for draws in given.draws]
    rows = defaultdict(list)
    for contrast, scan, truth in patients(config, once[0]):
        if truth.any():
            chosen = selector.at(contrast)
            cut = Cut(chosen.value, min_lesion_mm3=chosen.min_lesion_mm3, grow_to=chosen.grow_to)
            rows[contrast].append([figures(each, scan, contrast, truth, cut) for each in (*once, *several)])
    names = ["one draw", *(f"{draws} draws" for draws in given.draws)]
    print("| contrast | scans | figure | " + " | ".join(names) + " | sd over seeds: mean; largest |")
    print("|---|---|---|" + "---|" * (len(names) + 1))
    for contrast, found in rows.items():
        values = np.array(found)  # scans × runs × figures
        for number, name in enumerate(("AUPRC", "marked ml", "false positive ml")):
            seeds, others = values[:, : given.seeds, number], values[:, given.seeds :, number]
            means = [seeds.mean(), *others.mean(axis=0)]
            spread = seeds.std(axis=1, ddof=1)
            cells = " | ".join(f"{mean:.3f}" for mean in means)
            print(f"| {contrast} | {len(found)} | {name} | {cells} | {spread.mean():.3f}; {spread.max():.3f} |")


if __name__ == "__main__":
    main()
