"""The same glioma as it left the scanner and as data sets give it: what a model loses on raw clinical scans.

Raw: the whole head, slices of 5.5 mm. Given: stripped, on the SRI24 atlas, 1 mm. Only there is a mask (silver). Each
scan goes into template space by a registration of its own, so that both are compared on the working grid, each with
its own brain.

    python benchmarks/raw_clinical.py --data FOLDER [--model MODEL] [--threshold auto]
"""

import argparse
from pathlib import Path

import numpy as np

from halebrain.cli.options import find_device, read_calibration
from halebrain.core.types import FloatArray, MaskArray
from halebrain.evaluation.curve import Curve
from halebrain.evaluation.threshold import OperatingPoint
from halebrain.inference.postprocess import to_mask
from halebrain.inference.predictor import Predictor
from halebrain.io.nifti import read_mask, read_volume
from halebrain.models.store import load_model

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
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    bundle = load_model(arguments.model)
    predictor = Predictor(bundle, device=find_device("auto"), seed=arguments.seed)
    point, settings = OperatingPoint(read_calibration(bundle), arguments.threshold), predictor.postprocessing
    voxel_mm3 = predictor.preprocessor.config.spacing_mm**3
    folder = arguments.data / "tumour_tcga_lgg_FG-6692"
    print("| scan | brain, ml | AUPRC | Dice | best Dice |\n|---|---|---|---|---|")
    for modality, (raw, given) in CONTRASTS.items():
        stripped = read_volume(folder / "sri24_1mm_bet" / f"OtherEXampleFromTCIA_{given}_bet.nii.gz")
        lesion_given = read_mask(folder / "sri24_1mm_bet" / "simple.nii.gz", stripped)
        lesion: MaskArray | None = None
        # The stripped one first: the mask comes by it.
        for name, path in (("SRI24", None), ("raw", next((folder / "raw").glob(f"{raw}.nii.gz")))):
            scan = predictor.preprocessor.run(stripped if path is None else read_volume(path))
            lesion = scan.mask_from_native(lesion_given) if lesion is None else lesion
            score = predictor.predict_working(scan, modality=modality).score
            threshold = point.at(modality).value
            smallest = settings.min_lesion_mm3
            called = to_mask(score, threshold=threshold, min_lesion_mm3=smallest, voxel_mm3=voxel_mm3)
            # A brain of either scan may miss some of the lesion: that counts against it.
            brain = scan.brain_mask | lesion
            volume_ml = int(np.count_nonzero(scan.brain_mask)) * voxel_mm3 / 1000
            numbers = " | ".join(f"{v:.2f}" for v in figures(score, brain, lesion, called))
            print(f"| {modality}, {name} | {volume_ml:.0f} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
