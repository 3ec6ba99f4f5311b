"""The figures of the demo with the bundled model: a change of the code that is no change of the method leaves them.

Another processor adds in another order, and the registration ends a fraction of a voxel elsewhere: what depends on it
has the tolerance that two processors needed.

A new model, or a new virtual patient, changes them for a reason: `python tests/workflows/test_figures.py` writes them
again.
"""

import json
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from halebrain.workflows.demo import run_patient_demo
from halebrain.workflows.settings import DemoSettings

STORED = Path(__file__).with_name("demo_figures.json")
MAPS = (
    "pseudohealthy",
    "residual",
    "uncertainty",
    "segmenter_probseg",
    "anomaly_probseg",
    "anomaly_mask",
    "brain_mask",
)


def figures(folder: Path) -> dict[str, dict[str, float]]:
    """Run the demo of 2 mm; return for each contrast its metrics, and two sums over each map."""
    result = run_patient_demo(folder, DemoSettings(spacing_mm=2.0, device="cpu", notify=lambda *_: None))
    found = {}
    for scan in result.scans:
        values = {key: value for key, value in scan.document().items() if isinstance(value, int | float)}
        del values["seconds"]
        for name in MAPS:
            (path,) = (
                file for file in (folder / "detection").glob(f"*{name}*.nii.gz") if scan.record.modality in file.name
            )
            data = np.asarray(nibabel.load(path).dataobj, dtype=np.float64)
            values |= {f"{name}_sum": float(data.sum()), f"{name}_squares": float((data**2).sum())}
        found[scan.record.modality] = values
    return found


FAR: dict[str, tuple[float, float]] = {
    "auprc": (0.03, 0),
    "dice": (0.04, 0),
    "n_findings": (4, 0),
    "false_lesions": (4, 0),
    "found_volume_ml": (0, 0.2),
    "false_positive_volume": (2.5, 0.1),
    "pseudohealthy": (0, 0.01),
    "residual_sum": (600, 0),
    "residual_squares": (0, 0.1),
    "uncertainty": (0, 0.25),
    "segmenter_probseg": (0, 0.12),
    "anomaly_probseg": (0, 0.12),
    "anomaly_mask": (0, 0.2),
}
"""Figure, or map → the absolute and the relative tolerance of what depends on the registration."""


def tolerance(key: str) -> tuple[float, float]:
    """Return the absolute and the relative tolerance of a figure; the longest name that it begins with decides."""
    names = [name for name in FAR if key.startswith(name)]
    return FAR[max(names, key=len)] if names else (1e-6, 1e-4)


@pytest.mark.slow
def test_the_figures_of_the_bundled_model_stay(tmp_path):
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    found = figures(tmp_path)
    assert found.keys() == stored.keys()
    for modality, values in stored.items():
        assert found[modality].keys() == values.keys()
        for key, value in values.items():
            absolute, relative = tolerance(key)
            assert found[modality][key] == pytest.approx(value, rel=relative, abs=absolute), (modality, key)


if __name__ == "__main__":
    torch.set_num_threads(1)  # as tests run: sums of several threads can move the registration of a scan
    with tempfile.TemporaryDirectory() as directory:
        STORED.write_text(json.dumps(figures(Path(directory)), indent=2) + "\n", encoding="utf-8")
