"""The same glioma as it left the scanner and as data sets give it: what a model loses on raw clinical scans.

Raw: the whole head, slices of 5.5 mm. Given: stripped, on the SRI24 atlas, 1 mm. Only there is a mask (silver); it
comes to the raw scan by a registration of the two images, which the model has no part in. Each is judged on its own
grid, in the brain that was found in it and the lesion.

    python benchmarks/raw_clinical.py --data FOLDER [--model MODEL] [--modality FLAIR]
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from brain_extraction import mask_on_grid, register_stripped
from halebrain.core.device import find_device
from halebrain.core.mask import to_mask
from halebrain.core.types import FloatArray, MaskArray
from halebrain.evaluation.curve import Curve
from halebrain.inference.predictor import Predictor
from halebrain.io.volume import read_mask, read_volume
from halebrain.models.store import load_model
from halebrain.thresholds.calibration import read_calibration
from halebrain.thresholds.choose import ThresholdSelector

CONTRASTS = {"FLAIR": ("MRHR_FLAIR_AX_*_fla", "fla"), "T2w": ("MRHR_T2_AX_*_t2", "t2"), "T1w": ("T1_AX_*_t1", "t1")}


def figures(score: FloatArray, brain: MaskArray, lesion: MaskArray, called: MaskArray) -> list[float]:
    """Return AUPRC and best Dice in the brain, and Dice of what is called."""
    curve = Curve.of(score[brain], lesion[brain])
    dice = 2 * (called & lesion).sum() / (called.sum() + lesion.sum())
    return [curve.average_precision, float(dice), curve.best_dice[0]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="Folder, zip or name; default: the bundled one.")
    parser.add_argument("--threshold", default="auto", help="As in halebrain evaluate.")
    parser.add_argument("--modality", nargs="+", default=list(CONTRASTS), choices=list(CONTRASTS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    bundle = load_model(arguments.model)
    predictor = Predictor(bundle, device=find_device("auto"), seed=arguments.seed)
    point = ThresholdSelector(read_calibration(bundle), arguments.threshold)
    folder = arguments.data / "tumour_tcga_lgg_FG-6692"
    print("| scan | brain, ml | lesion outside of it | AUPRC | Dice | best Dice |\n|---|---|---|---|---|---|")
    for modality, (raw, given) in ((name, CONTRASTS[name]) for name in arguments.modality):
        stripped = read_volume(folder / "sri24_1mm_bet" / f"OtherEXampleFromTCIA_{given}_bet.nii.gz")
        head = read_volume(next((folder / "raw").glob(f"{raw}.nii.gz")))
        for name, volume in (("SRI24", stripped), ("raw", head)):
            lesion = read_mask(folder / "sri24_1mm_bet" / "simple.nii.gz", stripped)
            scan = predictor.preprocessor.run(volume)
            result, _ = predictor.predict_scan(volume, scan, modality)
            if name == "raw":
                to_stripped = register_stripped(volume, result.brain_mask, stripped)
                lesion = mask_on_grid(lesion.astype(np.float32), stripped.affine, volume, to_stripped)
            cut = replace(point.at(modality), min_lesion_mm3=predictor.postprocessing.min_lesion_mm3).cut
            called = to_mask(result.score, cut, voxel_mm3=scan.native.voxel_mm3)
            # A brain that misses some of the lesion: that counts against it.
            brain, ml = result.brain_mask | lesion, scan.native.voxel_mm3 / 1000
            missed = float((lesion & ~result.brain_mask).sum() / lesion.sum())
            numbers = " | ".join(f"{v:.2f}" for v in (missed, *figures(result.score, brain, lesion, called)))
            print(f"| {modality}, {name} | {np.count_nonzero(result.brain_mask) * ml:.0f} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
