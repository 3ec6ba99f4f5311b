"""Voxel AUPRC of a model on two real patients, beside reconstruction alone, segmenter alone and plain intensity.

The folder is the one that the tests use (HALEBRAIN_TEST_DATA): MSLUB patient 26 (multiple sclerosis, Lesjak 2017)
and TCGA-LGG FG-6692 (glioma; mask fused from five algorithms, so silver). Neither was ever learned from.

    python benchmarks/real_patients.py --data FOLDER --output OUT [--model demo/stage2/model]
"""

import argparse
from pathlib import Path

from halebrain.cli.options import find_device, read_calibration
from halebrain.cli.scoring import run_evaluation
from halebrain.evaluation.tables import write_evaluation
from halebrain.evaluation.threshold import OperatingPoint
from halebrain.inference.predictor import Predictor
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.models.store import load_model

METHODS = ("model", "segmenter alone", "reconstruction alone", "intensity rank")


def real_patients(data: Path) -> Manifest:
    """Return the annotated real scans of the folder."""
    ms = data / "ms_mslub" / "patient26_MNI"
    tumour = data / "tumour_tcga_lgg_FG-6692" / "sri24_1mm_bet"
    ms_lesion = ms / "GOLD_STANDARD_N4_noneck_reduced_winsor_regtoFLAIR_regtoMNI.nii.gz"
    files = [
        (
            "mslub26",
            "ms",
            ms / f"{name}_N4_noneck_reduced_winsor_regtoFLAIR_brain_N4_regtoMNI.nii.gz",
            modality,
            ms_lesion,
        )
        for name, modality in (("FLAIR", "FLAIR"), ("T2", "T2w"), ("T1", "T1w"))
    ] + [
        ("tcgaFG6692", "tumour", tumour / f"OtherEXampleFromTCIA_{name}_bet.nii.gz", modality, tumour / "simple.nii.gz")
        for name, modality in (("fla", "FLAIR"), ("t2", "T2w"), ("t1", "T1w"))
    ]
    records = [
        ScanRecord(subject=subject, image=image, modality=modality, lesion=lesion, pathology=pathology, split="test")
        for subject, pathology, image, modality, lesion in files
    ]
    return Manifest(tuple(records), source=data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="Folder, zip or name; default: the bundled one.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    bundle = load_model(arguments.model)
    point = OperatingPoint(read_calibration(bundle))
    predictor = Predictor(bundle, device=find_device("auto"), seed=arguments.seed)
    evaluation = run_evaluation(predictor, real_patients(arguments.data), point=point)
    write_evaluation(evaluation, arguments.output)
    print(f"| scan | {' | '.join(METHODS)} | Dice at the calibrated threshold |")
    print("|---" * (len(METHODS) + 2) + "|")
    for scan in dict.fromkeys(row.scan_id for row in evaluation.rows):
        mine = [row for row in evaluation.rows if row.scan_id == scan]
        auprc = {row.method: row.value for row in mine if row.metric == "auprc"}
        dice = next(row.value for row in mine if row.metric == "dice")
        print(f"| {scan} | {' | '.join(f'{auprc[m]:.3f}' for m in METHODS)} | {dice:.3f} |")


if __name__ == "__main__":
    main()
