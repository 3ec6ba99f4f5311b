"""Voxel AUPRC of a model on two real patients, beside reconstruction alone, segmenter alone and plain intensity.

Dice is given at each threshold that is asked for, and at the best one of that very scan, which nobody has in use.

The folder is the one that the tests use (HALEBRAIN_TEST_DATA): MSLUB patient 26 (multiple sclerosis, Lesjak 2017)
and TCGA-LGG FG-6692 (glioma; mask fused from five algorithms, so silver). Neither was ever learned from.

    python benchmarks/real_patients.py --data FOLDER --output OUT [--model MODEL] [--threshold auto dice]

With --healthy it also scores the signed voxel-wise z-score of an atlas, fitted on the healthy training scans of
a manifest: what morphometry would find. Virtual healthy scans of the three contrasts, and then the table:

    halebrain cohort -o healthy --subjects 90 --patients 0 --seed 901 --variety wide --prefix atlas --workers 2
    python benchmarks/real_patients.py --data FOLDER --output OUT --healthy healthy/manifest.tsv

With --manifest it writes the table of those scans and stops. From one patient to the other:

    python benchmarks/real_patients.py --data FOLDER --manifest real.tsv
    halebrain adapt --manifest real.tsv --pathology tumour -o adapted
"""

import argparse
from pathlib import Path

from halebrain.core.device import find_device
from halebrain.core.failures import Failures
from halebrain.evaluation.evaluate import Evaluation
from halebrain.evaluation.tables import write_evaluation
from halebrain.inference.predictor import Predictor
from halebrain.io.manifest import Manifest, ScanRecord, Split
from halebrain.models.store import load_model
from halebrain.thresholds.calibration import read_calibration
from halebrain.thresholds.choose import ThresholdSelector
from halebrain.workflows.evaluate import fit_atlases, run_evaluation

METHODS = ("model", "segmenter alone", "reconstruction alone", "intensity rank")
ATLAS = "atlas z-score signed"


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
    parser.add_argument("--healthy", type=Path, help="Manifest whose healthy training scans make an atlas.")
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
    atlases = None
    if arguments.healthy is not None:
        healthy = Manifest.read(arguments.healthy)
        atlases = fit_atlases(healthy, real_patients(arguments.data), predictor.preprocessor)
    found = {}
    for name in arguments.threshold:
        selector = ThresholdSelector(read_calibration(bundle), name)
        failures, rows = Failures(None), real_patients(arguments.data)
        found[name] = run_evaluation(predictor, rows, selector=selector, failures=failures, atlases=atlases)
        failures.refuse("every scan should be scored", len(rows), remedy="fix what each line says")
        write_evaluation(found[name], arguments.output / name.replace(":", "_"))
    table(found)


def table(found: dict[str, Evaluation]) -> None:
    """Print a line a scan; `found` holds the evaluation at each threshold, which differ in Dice alone."""
    first = next(iter(found.values()))
    methods = (*METHODS, *([ATLAS] if any(row.method == ATLAS for row in first.rows) else []))
    dices = [f"Dice at {name}, false-positive ml" for name in found]
    print(f"| scan | {' | '.join(methods)} | {' | '.join(dices)} | best Dice (rank) |")
    print("|---" * (len(methods) + len(dices) + 2) + "|")
    for scan in dict.fromkeys(row.scan_id for row in first.rows):
        auprc = [value(first, scan, method, "auprc") for method in methods]
        marked = [
            f"{value(one, scan, 'model', 'dice'):.2f}, {value(one, scan, 'model', 'false_positive_volume'):.1f}"
            for one in found.values()
        ]
        best = [value(first, scan, method, "dice_oracle_per_scan") for method in ("model", "intensity rank")]
        cells = [*(f"{a:.3f}" for a in auprc), *marked, f"{best[0]:.2f} ({best[1]:.2f})"]
        print(f"| {scan} | {' | '.join(cells)} |")


def value(evaluation: Evaluation, scan: str, method: str, metric: str) -> float:
    """Return one number of the table of scans."""
    rows = evaluation.rows
    return next(r.value for r in rows if (r.scan_id, r.method, r.metric) == (scan, method, metric))


if __name__ == "__main__":
    main()
