"""How long a batch of 32 slices takes from the cache, beside reading each scan anew (32 times the median of one).

python benchmarks/loading.py [--scans 40] [--batches 200]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from halebrain.data.samplers import SliceSampler
from halebrain.data.slices import build_store
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.nifti import write_volume
from halebrain.io.volume import read_volume
from halebrain.preprocessing.pipeline import PreprocessingConfig

_CONFIG = PreprocessingConfig(registration="none", bias_correction="none")
_BATCH = 32


def make_scans(folder: Path, count: int) -> Manifest:
    """Return `count` stripped scans of noise on the working grid."""
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in _CONFIG.shape), indexing="ij")
    inside = i**2 + j**2 + k**2 < 0.6
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [-95.0, -113.0, -73.0]
    records = []
    for number in range(count):
        data = np.where(inside, np.random.default_rng(number).uniform(50, 100, inside.shape), 0).astype(np.float32)
        path = folder / f"sub-{number:03}_T1w.nii.gz"
        write_volume(path, data, affine)
        records.append(ScanRecord(subject=f"{number:03}", image=path, modality="T1w"))
    return Manifest(tuple(records))


def median_ms(function: Callable[[int], object], count: int) -> float:
    """Return the median time of a call in ms."""
    times = []
    for step in range(count):
        start = time.perf_counter()
        function(step)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def main() -> None:
    """Print both medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=40)
    parser.add_argument("--batches", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        manifest = make_scans(Path(folder), options.scans)
        store = build_store(manifest, _CONFIG, Path(folder) / "cache", description="scans")
        sampler = SliceSampler(store, _BATCH, 0, "train")
        cached = median_ms(sampler.batch, options.batches)
        records = manifest.records
        one = median_ms(lambda step: read_volume(records[step % len(records)].image).data[:, :, 40], 20)
    print(f"batch of {_BATCH} slices from the cache      {cached:8.2f} ms")
    print(f"the same, each from its .nii.gz      {_BATCH * one:8.0f} ms")
    print(f"ratio                                {_BATCH * one / cached:8.0f}")


if __name__ == "__main__":
    main()
