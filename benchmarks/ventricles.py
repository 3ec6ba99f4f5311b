"""Measured volume of the ventricles against the true one, in virtual people of 20 to 90 years, and who is flagged.

    python benchmarks/ventricles.py [--people 24] [--pathology healthy] [--seed 7]

True is the fluid of the ventricles in a person's anatomy at 2 mm; scans are those of `--variety wide`.
"""

import argparse

import numpy as np

from halebrain.core.types import TEMPLATE_SPACE, Volume
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor
from halebrain.preprocessing.quality.rules import WIDE_VENTRICLES
from halebrain.simulation.anatomy import TISSUES
from halebrain.simulation.config import CohortConfig
from halebrain.simulation.subject import render_subject, sample_subject

_WIDE_ML = 60.0
"""True volume above which ventricles count as wide here."""


def measured(subject: str, pathology: str, config: CohortConfig) -> tuple[float, float, dict[str, tuple[float, bool]]]:
    """Return age and true volume of a person, and contrast → measured volume (NaN = none) and whether it is flagged."""
    params = sample_subject(subject, pathology, config)
    images = render_subject(params, spacing_mm=config.spacing_mm)
    ventricles = images.anatomy.tissues[TISSUES.index("ventricle")]
    found: dict[str, tuple[float, bool]] = {}
    for contrast, scan in images.scans.items():
        volume = Volume((1000 * scan).numpy().astype(np.float32), images.anatomy.grid.affine, name=contrast)
        mask = images.brain_mask.numpy().astype(bool)
        qc = Preprocessor(PreprocessingConfig()).run(volume, brain_mask=mask, space=TEMPLATE_SPACE).qc
        size = np.nan if qc.ventricles_ml is None else qc.ventricles_ml
        found[contrast] = size, any(flag.startswith(WIDE_VENTRICLES) for flag in qc.flags)
    return params.anatomy.age, float(ventricles.sum()) * config.spacing_mm**3 / 1000, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--pathology", default="healthy")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    config = CohortConfig(variety="wide", ages=(20, 90), seed=given.seed)
    print("| age | true ml | " + " | ".join(config.modalities) + " |\n|---|---|" + "---|" * len(config.modalities))
    rows = []
    for number in range(given.people):
        age, true_ml, found = measured(f"{given.pathology}{number:03d}", given.pathology, config)
        cells = " | ".join(f"{size:.1f}{' flagged' if flagged else ''}" for size, flagged in found.values())
        print(f"| {age:.0f} | {true_ml:.1f} | {cells} |", flush=True)
        rows.append((true_ml, found))
    for contrast in config.modalities:
        true_ml = np.array([row[0] for row in rows])
        size, flagged = np.array([row[1][contrast] for row in rows]).T
        known, wide = np.isfinite(size), true_ml > _WIDE_ML
        error = np.abs(size - true_ml)[known]
        alike = np.corrcoef(size[known], true_ml[known])[0, 1]
        print(
            f"{contrast}: correlation {alike:.2f}, error {np.median(error):.1f} ml in the median "
            f"({np.percentile(error, 90):.1f} in 9 of 10); flagged {int(flagged[wide].sum())} of {wide.sum()} above "
            f"{_WIDE_ML:.0f} ml, {int(flagged[~wide].sum())} of {(~wide).sum()} others"
        )


if __name__ == "__main__":
    main()
