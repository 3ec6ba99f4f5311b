"""The two folds of `halebrain benchmark -c cpu2`: test brains are made of anatomies that no training saw.

In each fold, virtual people of the template's anatomy train and validate, and virtual people of real anatomies (label
maps and T1 scans, half of them in each fold) test: 32 of each disease and 24 healthy ones in each fold, in T1 and
FLAIR. Folds share neither people nor test anatomies.

    python benchmarks/claim_cohorts.py --labels LABELS --t1 T1_SCANS --output cohorts
    halebrain benchmark -c cpu2 -o claim --folds cohorts/folds
    halebrain benchmark -c cpu2_flair -o claim_flair --folds cohorts/folds

Repeated, it makes only what is missing.
"""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from halebrain.core.parallel import Schedule
from halebrain.io.manifest import Manifest
from halebrain.simulation.anatomy_source import gather_anatomies
from halebrain.simulation.config import CohortConfig, grid_shape
from halebrain.simulation.generate import ANATOMIES, generate_cohort

FOLDS = 2


@dataclass(frozen=True)
class Sizes:
    """People of a fold: healthy ones and patients of each disease, to learn from (a quarter validates) and to test."""

    healthy: int = 80
    patients: int = 40
    test_healthy: int = 24
    test_patients: int = 32
    spacing_mm: float = 3.0
    pathologies: tuple[str, ...] = ("tumour", "stroke", "ms", "wmh")
    modalities: tuple[str, ...] = ("T1w", "FLAIR")


def make_folds(output: Path, anatomies: Path, names: Sequence[str], sizes: Sizes, *, workers: int = 0) -> list[Path]:
    """Make what is missing of the cohorts in `output`, and return the tables of the folds.

    `names` are the anatomies in the folder `anatomies`; each fold tests on every second one.
    """
    tables = []
    (output / "folds").mkdir(parents=True, exist_ok=True)
    for fold in range(FOLDS):
        own = tuple(sorted(names)[fold::FOLDS])
        if not own:
            raise SystemExit("each fold needs an anatomy of its own: give more label maps or T1 scans")
        learned = _cohort(
            *(output / f"learn{fold}", f"learn{fold}", 20 + fold, (0.75, 0.25, 0.0), (), sizes, workers),
            healthy=sizes.healthy,
            patients=sizes.patients,
        )
        place = output / f"test{fold}"
        (place / ANATOMIES).mkdir(parents=True, exist_ok=True)
        for name in own:
            shutil.copyfile(anatomies / f"{name}.npz", place / ANATOMIES / f"{name}.npz")
        tested = _cohort(
            *(place, f"test{fold}", 30 + fold, (0.0, 0.0, 1.0), own, sizes, workers),
            healthy=sizes.test_healthy,
            patients=sizes.test_patients,
        )
        tables.append(output / "folds" / f"fold{fold}.tsv")
        learned.joined(tested).write(tables[-1])
    return tables


def _cohort(
    output: Path,
    prefix: str,
    seed: int,
    fractions: tuple[float, float, float],
    anatomies: tuple[str, ...],
    sizes: Sizes,
    workers: int,
    *,
    healthy: int,
    patients: int,
) -> Manifest:
    config = CohortConfig(
        healthy=healthy,
        patients=patients,
        modalities=sizes.modalities,
        pathologies=sizes.pathologies,
        seed=seed,
        spacing_mm=sizes.spacing_mm,
        split_fractions=fractions,
        anatomies=anatomies,
        template_share=0.0 if anatomies else CohortConfig().template_share,
        prefix=prefix,
    )
    return generate_cohort(output, config, Schedule(workers))


def main() -> None:
    """Make the cohorts and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, help="folder of label maps (FreeSurfer, SynthSeg)")
    parser.add_argument("--t1", type=Path, help="healthy T1 scans: a folder or a manifest")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    sizes, folder = Sizes(), options.output / ANATOMIES
    names: list[str] = []
    for kind, place in (("labels", options.labels), ("t1", options.t1)):
        if place is not None:
            shape = grid_shape(sizes.spacing_mm)
            names += gather_anatomies(kind, place, folder, shape=shape, spacing_mm=sizes.spacing_mm)
    for path in make_folds(options.output, folder, names, sizes, workers=options.workers):
        print(path)


if __name__ == "__main__":
    main()
