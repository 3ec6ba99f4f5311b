"""Every metric on a whole 1 mm scan, beside scikit-learn and MONAI on the same arrays in one run.

Prints the time of all metrics together with the memory that they took, then for each that a library has too its value,
the relative difference, and how many times as fast ours is (medians of several repeats). MONAI is needed for its half
only (`pip install -c constraints.txt -e ".[bench]"`). Last, many scans are streamed, to show that memory does not grow
with their number.

    python benchmarks/metrics.py [--scans N]
"""

import argparse
import importlib.util
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from halebrain.evaluation.case import Case
from halebrain.evaluation.curve import Curve
from halebrain.evaluation.evaluate import Evaluator, score_case
from halebrain.evaluation.metrics import METRICS
from halebrain.evaluation.provenance import NATIVE_GRID, EvaluationProvenance
from halebrain.io.manifest import ScanRecord

SHAPE, SPACING_MM, THRESHOLD = (197, 233, 189), (1.0, 1.0, 1.0), 0.5  # 8.7 million voxels, as MNI152 at 1 mm
PROVENANCE = EvaluationProvenance(grid=NATIVE_GRID, seed=0)


def make_case(seed: int = 0) -> Case:
    """Return a scan with some thirty lesions and a graded map that finds most of them."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal(SHAPE, dtype=np.float32), 4)
    smooth /= smooth.std()
    index = np.indices(SHAPE, dtype=np.float32)
    radius = sum(((x - n / 2) / (0.42 * n)) ** 2 for x, n in zip(index, SHAPE, strict=True))
    brain = radius < 1
    lesion = brain & (smooth > 3.0)
    noise = ndimage.gaussian_filter(rng.standard_normal(SHAPE, dtype=np.float32), 1.5)
    score = 1 / (1 + np.exp(-(1.6 * (smooth - 2.9) + 3.0 * noise / noise.std() * 0.4)))
    return Case(
        record=ScanRecord("benchmark", Path("benchmark.nii"), "FLAIR", pathology="ms"),
        scan_id="benchmark",
        reference=lesion,
        region=np.ones(SHAPE, dtype=bool),
        spacing_mm=SPACING_MM,
        score=(score * brain).astype(np.float32),
        mask=brain & (score >= THRESHOLD),
    )


def fresh(case: Case) -> Case:
    """Return the case with nothing cached."""
    fields = Case.__dataclass_fields__
    return Case(**{name: getattr(case, name) for name in fields})


def median_s(run: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def compare(name: str, ours: Callable[[], float], theirs: Callable[[], float], *, repeats: int = 3) -> None:
    difference = abs(ours() - theirs()) / max(1.0, abs(theirs()))  # MONAI counts millimetres in single precision
    ratio = median_s(theirs, repeats) / median_s(ours, repeats)
    print(f"{name:34} {ours():10.6f}   relative difference {difference:.1e}   {ratio:6.1f} × as fast")
    assert difference < 1e-6, f"{name} differs from its reference"


def against_scikit_learn(case: Case) -> None:
    score, labels = case.values, case.labels
    compare(
        "AUPRC, scikit-learn",
        lambda: Curve.of(score, labels).average_precision,
        lambda: float(average_precision_score(labels, score)),
    )
    compare("AUROC, scikit-learn", lambda: Curve.of(score, labels).auroc, lambda: float(roc_auc_score(labels, score)))


def against_monai(case: Case) -> None:
    if importlib.util.find_spec("monai") is None:
        print('MONAI is not installed: pip install -c constraints.txt -e ".[bench]"')
        return
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

    prediction, reference = (torch.from_numpy(a)[None, None].float() for a in (case.mask, case.reference))
    about = {"y_pred": prediction, "y": reference, "include_background": True}
    compare("Dice, MONAI", lambda: METRICS.get("dice")(fresh(case)), lambda: float(compute_dice(**about)))
    compare(
        "HD95, MONAI",
        lambda: METRICS.get("hd95")(fresh(case)),
        lambda: float(compute_hausdorff_distance(**about, percentile=95, spacing=list(SPACING_MM))),
    )
    compare(
        "surface Dice at 2 mm, MONAI",
        lambda: METRICS.get("surface_dice_2mm")(fresh(case)),
        lambda: float(compute_surface_dice(**about, class_thresholds=[2.0], spacing=list(SPACING_MM))),
    )


def stream(case: Case, scans: int) -> None:
    """Evaluate many scans and print how much memory each added."""
    evaluator = Evaluator(seed=0)
    evaluator.add("model", fresh(case))
    before, start = peak_gb(), time.perf_counter()
    for number in range(scans):
        record = replace(case.record, subject=f"subject{number}")
        evaluator.add("model", replace(fresh(case), record=record, scan_id=f"scan{number}"))
    evaluator.finish(PROVENANCE)
    seconds = (time.perf_counter() - start) / scans
    print(f"{scans} more scans streamed: {peak_gb() - before:.3f} GB more at the peak, {seconds:.2f} s a scan")


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=20, help="how many scans are streamed")
    scans = parser.parse_args().scans
    case = make_case()
    lesions = case.reference_lesions[1]
    print(f"{np.prod(SHAPE) / 1e6:.1f} million voxels, {lesions} lesions, {case.reference.sum() / 1000:.0f} ml")
    before = peak_gb()
    alone = median_s(lambda: score_case(fresh(case)), 3)

    def whole_set() -> None:
        evaluator = Evaluator(seed=0)
        evaluator.add("model", fresh(case))
        evaluator.finish(PROVENANCE)

    together = median_s(whole_set, 3)
    grown = peak_gb() - before
    print(
        f"all {len(METRICS.names())} metrics of a scan: {alone:.2f} s; with the values of the set: {together:.2f} s;",
        end=" ",
    )
    print(f"{grown:.2f} GB above the arrays themselves")
    for name in METRICS:
        print(f"    {name:28} {median_s(lambda name=name: METRICS.get(name)(fresh(case)), 1):.2f} s alone")
    against_scikit_learn(case)
    against_monai(case)
    stream(case, scans)


if __name__ == "__main__":
    main()
