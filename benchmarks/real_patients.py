"""Voxel AUPRC of a model on two real patients, beside reconstruction alone, segmenter alone and plain intensity.

Dice is given at each threshold that is asked for, and at the best one of that very scan, which nobody has in use.

The folder is the one that the tests use (HALEBRAIN_TEST_DATA): MSLUB patient 26 (multiple sclerosis, Lesjak 2017)
and TCGA-LGG FG-6692 (glioma; mask fused from five algorithms, so silver). Neither was ever learned from.

    python benchmarks/real_patients.py --data FOLDER --output OUT [--model demo/stage2/model] [--threshold auto dice]

With --manifest it writes the table of those scans and stops. From one patient to the other:

    python benchmarks/real_patients.py --data FOLDER --manifest real.tsv
    halebrain adapt --manifest real.tsv --pathology tumour -o adapted
"""

import argparse
from pathlib import Path

from halebrain.cli.options import find_device, read_calibration
from halebrain.cli.scoring import run_evaluation
from halebrain.core.failures import Failures
from halebrain.evaluation.evaluate import Evaluation
from halebrain.evaluation.operating_point import OperatingPoint
from halebrain.evaluation.tables import write_evaluation
from halebrain.inference.predictor import Predictor
from halebrain.io.manifest import Manifest, ScanRecord, Split
from halebrain.models.store import load_model

METHODS = ("model", "segmenter alone", "reconstruction alone", "intensity rank")


def real_patients(data: Path, split: Split | None = "test") -> Manifest:
    """Return the annotated real scans of the folder, in a split or in none."""
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
        ScanRecord(subject=subject, image=image, modality=modality, lesion=lesion, pathology=pathology, split=split)
        for subject, pathology, image, modality, lesion in files
    ]
    return Manifest(tuple(records), source=data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="Folder, zip or name; default: the bundled one.")
    parser.add_argument("--output", type=Path, help="A folder for each threshold is made in it.")
    parser.add_argument("--manifest", type=Path, help="Write the table of the scans here, and stop.")
    parser.add_argument("--threshold", nargs="+", default=["auto"], help="As in halebrain evaluate.")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.manifest is not None:
        real_patients(arguments.data, split=None).write(arguments.manifest)
        return
    if arguments.output is None:
        parser.error("--output is needed")
    bundle = load_model(arguments.model)
    predictor = Predictor(bundle, device=find_device("auto"), seed=arguments.seed)
    found = {}
    for name in arguments.threshold:
        point = OperatingPoint(read_calibration(bundle), name)
        failures, rows = Failures(None), real_patients(arguments.data)
        found[name] = run_evaluation(predictor, rows, point=point, failures=failures)
        failures.refuse("every scan should be scored", len(rows), remedy="mend what each line says")
        write_evaluation(found[name], arguments.output / name.replace(":", "_"))
    table(found)


def table(found: dict[str, Evaluation]) -> None:
    """Print a line a scan; `found` holds the evaluation at each threshold, which differ in Dice alone."""
    first = next(iter(found.values()))
    dices = [f"Dice at {name}, ml in vain" for name in found]
    print(f"| scan | {' | '.join(METHODS)} | {' | '.join(dices)} | best Dice (rank) |")
    print("|---" * (len(METHODS) + len(dices) + 2) + "|")
    for scan in dict.fromkeys(row.scan_id for row in first.rows):
        auprc = [value(first, scan, method, "auprc") for method in METHODS]
        called = [
            f"{value(one, scan, 'model', 'dice'):.2f}, {value(one, scan, 'model', 'false_positive_volume'):.1f}"
            for one in found.values()
        ]
        best = [value(first, scan, method, "dice_oracle_per_scan") for method in ("model", "intensity rank")]
        cells = [*(f"{a:.3f}" for a in auprc), *called, f"{best[0]:.2f} ({best[1]:.2f})"]
        print(f"| {scan} | {' | '.join(cells)} |")


def value(evaluation: Evaluation, scan: str, method: str, metric: str) -> float:
    """Return one number of the table of scans."""
    rows = evaluation.rows
    return next(r.value for r in rows if (r.scan_id, r.method, r.metric) == (scan, method, metric))


if __name__ == "__main__":
    main()
