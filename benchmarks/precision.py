"""What inference in bfloat16 changes, and what it saves: the bundled model on the validation scans of a virtual cohort.

Each scan goes through the networks in single precision and in bfloat16, one after the other. Prints the voxel AUPRC of
both in each annotated scan, the largest change of a score, and the ratio of the times of the networks. bfloat16 may be
a default only where no AUPRC changes by more than 0.002.

    python benchmarks/precision.py --manifest cohort/manifest.tsv [--model MODEL] [--device cuda] [--limit 12]
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score

from halebrain.core.device import find_device
from halebrain.inference.predictor import Predictor
from halebrain.inference.scans import open_annotated
from halebrain.io.manifest import Manifest
from halebrain.models.store import load_model

LIMIT = 0.002


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--limit", type=int, default=12, help="annotated scans")
    arguments = parser.parse_args()
    bundle, device = load_model(arguments.model), find_device(arguments.device)
    single, half = (Predictor(bundle, device=device, precision=kind) for kind in ("fp32", "bf16"))
    rows = Manifest.read(arguments.manifest).split("val").select(lambda record: record.is_annotated)
    changes, ratios, scores = [], [], []
    for record in rows.records[:: max(1, len(rows) // arguments.limit)]:  # of every disease and contrast
        prepared = open_annotated(single.preprocessor, record)
        maps, seconds = [], []
        for predictor in (single, half):
            start = time.perf_counter()
            maps.append(predictor.predict_working(prepared.scan, record.contrast).score)
            seconds.append(time.perf_counter() - start)
        inside = prepared.scan.brain_mask
        before, after = (float(average_precision_score(prepared.lesion[inside], found[inside])) for found in maps)
        changes.append(after - before)
        ratios.append(seconds[1] / seconds[0])
        scores.append(float(np.abs(maps[1] - maps[0]).max()))
        print(f"{record.scan_id:24} fp32 {before:.4f}  bf16 {after:.4f}  change {after - before:+.4f}", flush=True)
    largest = max(map(abs, changes))
    print(f"{len(changes)} scans on {device}: AUPRC changes by {statistics.mean(changes):+.4f} in the mean,", end=" ")
    print(f"by {largest:.4f} at most ({'within' if largest <= LIMIT else 'above'} {LIMIT});", end=" ")
    print(f"a score by {max(scores):.3f} at most; time of the networks × {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
