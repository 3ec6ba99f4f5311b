"""How often a head that is turned, nodded and tilted registers to the template, by each engine.

Every stripped real scan of the folder that the tests use (HALEBRAIN_TEST_DATA) is registered as it lies; that is the
reference. Then its header is turned by an angle of `--degrees` about a random axis, its voxels untouched, and it is
registered again: the error is how far the template's brain lands from where the reference and the turn put it
(median over its points, mm). Wrong is more than 5 mm; said is what the package marks as failed.

    python benchmarks/registration.py --data FOLDER [--engine greedy simpleitk] [--seed 1] [--turns 3] [--one-start]
"""

import argparse
import itertools
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from halebrain.core.random import derive_seed
from halebrain.core.types import Affine, MaskArray, Volume
from halebrain.io.volume import read_volume
from halebrain.preprocessing.geometry import apply_affine
from halebrain.preprocessing.registration import (
    REGISTRATION_ENGINES,
    EngineName,
    Registration,
    prepare_brain,
    register_to_template,
)
from halebrain.preprocessing.registration.register import assess
from halebrain.preprocessing.registration.starts import SharedInformation
from halebrain.preprocessing.template import find_template

_WRONG_MM = 5.0


def stripped_scans(data: Path, healthy: int) -> dict[str, Path]:
    """Return name → path of stripped scans: T1, T2 and FLAIR, healthy and ill."""
    ms, stroke = data / "ms_mslub" / "patient26_MNI", data / "stroke_cstar_nomask"
    tumour = data / "tumour_tcga_lgg_FG-6692" / "sri24_1mm_bet"
    found = {
        f"{path.name.split('_')[0]} T1": path
        for path in sorted((data / "healthy_t1_2mm_ds002748").glob("*.nii.gz"))[:: max(1, 54 // max(healthy, 1))][
            :healthy
        ]
    }
    found |= {
        f"MS {name}": ms / f"{name}_N4_noneck_reduced_winsor_regtoFLAIR_brain_N4_regtoMNI.nii.gz"
        for name in ("FLAIR", "T2", "T1")
    }
    found |= {f"stroke {name}": stroke / f"{name}.nii.gz" for name in ("FLAIR", "T2", "T1")}
    found |= {
        f"glioma {name}": tumour / f"OtherEXampleFromTCIA_{word}_bet.nii.gz"
        for name, word in (("FLAIR", "fla"), ("T2", "t2"), ("T1", "t1"))
    }
    return found


def turned(volume: Volume, rng: np.random.Generator, degrees: tuple[float, float]) -> tuple[Volume, Affine]:
    """Return the scan turned by its header about a random axis through its middle, and the turn (mm, RAS)."""
    axis = rng.normal(size=3)
    rotation = Rotation.from_rotvec(axis / np.linalg.norm(axis) * rng.uniform(*degrees), degrees=True)
    centre = apply_affine(volume.affine, (np.array(volume.shape, dtype=np.float64)[None] - 1) / 2)[0]
    turn = np.eye(4)
    turn[:3, :3] = rotation.as_matrix()
    turn[:3, 3] = centre - turn[:3, :3] @ centre + rng.uniform(-20, 20, 3)
    return Volume(volume.data, turn @ volume.affine, name=volume.name), turn


def median_mm(one: Affine, other: Affine) -> float:
    """Return how far apart two placements put the template's brain, mm (median over its points)."""
    template = find_template()
    points = apply_affine(template.image.affine, np.argwhere(template.mask)[::50].astype(np.float64))
    return float(np.median(np.linalg.norm(apply_affine(one, points) - apply_affine(other, points), axis=1)))


def from_the_centre(volume: Volume, mask: MaskArray, engine: EngineName) -> Registration:
    """Register from centroid on centroid alone, without a search for starts: often wrong, so that flags show."""
    template, brain = find_template(), prepare_brain(volume, mask)
    start = np.eye(4)
    here = apply_affine(brain.image.affine, np.argwhere(brain.mask).mean(axis=0)[None])[0]
    shared = SharedInformation.of(brain, template, every=4)
    start[:3, 3] = here - shared.centre
    return assess(REGISTRATION_ENGINES.get(engine)(brain, start, template), brain, template, shared, engine)


@dataclass
class Tally:
    """What one engine came to."""

    total: int = 0
    wrong: int = 0
    said: int = 0
    needless: int = 0
    errors_mm: list[float] = field(default_factory=list)
    upright: dict[str, Registration] = field(default_factory=dict)

    def add(self, error_mm: float, *, failed: bool) -> None:
        """Count one turned head."""
        is_wrong = error_mm > _WRONG_MM
        self.total += 1
        self.wrong += is_wrong
        self.said += is_wrong and failed
        self.needless += failed and not is_wrong
        self.errors_mm += [] if is_wrong else [error_mm]

    def agreement_mm(self) -> float:
        """Return how far apart the contrasts of one patient, which share a grid, are placed: mean over the pairs."""
        pairs = [
            median_mm(self.upright[one].template_to_native, self.upright[other].template_to_native)
            for one, other in itertools.combinations(self.upright, 2)
            if one.split()[0] == other.split()[0]
        ]
        return float(np.mean(pairs)) if pairs else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--engine", nargs="+", default=["greedy", "simpleitk"], choices=REGISTRATION_ENGINES.names())
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--turns", type=int, default=3, help="Of each scan.")
    parser.add_argument("--healthy", type=int, default=3, help="Healthy T1 scans beside three patients.")
    parser.add_argument("--degrees", type=float, nargs=2, default=(20.0, 40.0))
    parser.add_argument("--one-start", action="store_true", help="No search for starts: how many wrong ones are said?")
    arguments = parser.parse_args()
    print("| scan | engine | upright: Dice, NMI, margin, s | turned: error, mm | margin | Dice | s | said |")
    print("|---|---|---|---|---|---|---|---|")
    tallies = {engine: Tally() for engine in arguments.engine}
    for name, path in stripped_scans(arguments.data, arguments.healthy).items():
        volume = read_volume(path)
        mask = volume.data > 0
        for engine, tally in tallies.items():
            start = time.perf_counter()
            tally.upright[name] = upright = register_to_template(volume, mask, engine=engine)
            seconds = time.perf_counter() - start
            rng = np.random.default_rng(derive_seed(arguments.seed, name))
            rows: list[tuple[float, Registration, float]] = []
            for _ in range(arguments.turns):
                moved, turn = turned(volume, rng, tuple(arguments.degrees))
                start = time.perf_counter()
                if arguments.one_start:
                    found = from_the_centre(moved, mask, engine)
                else:
                    found = register_to_template(moved, mask, engine=engine)
                error = median_mm(found.template_to_native, turn @ upright.template_to_native)
                rows.append((error, found, time.perf_counter() - start))
                tally.add(error, failed=found.failed)
            print(
                f"| {name} | {engine} | {upright.mask_dice:.3f} {upright.nmi:.4f} {upright.margin:.2f} {seconds:.1f} "
                f"| {' '.join(f'{error:.1f}' for error, _, _ in rows)} "
                f"| {' '.join(f'{found.margin:.2f}' for _, found, _ in rows)} "
                f"| {' '.join(f'{found.mask_dice:.2f}' for _, found, _ in rows)} "
                f"| {np.median([seconds for *_, seconds in rows]):.1f} | {sum(found.failed for _, found, _ in rows)} |",
                flush=True,
            )
    for engine, tally in tallies.items():
        print(
            f"{engine}: {tally.wrong} of {tally.total} wrong, {tally.said} of them said to fail; {tally.needless} "
            f"right ones said to fail; median error of the right ones {np.median(tally.errors_mm):.2f} mm; "
            f"contrasts of one patient {tally.agreement_mm():.2f} mm apart"
        )


if __name__ == "__main__":
    main()
