"""The figures of the demo with the bundled model: a change of the code that is no change of the method leaves them.

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


@pytest.mark.slow
def test_the_figures_of_the_bundled_model_stay(tmp_path):
    """A part in ten thousand is left for processors that add in another order."""
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    found = figures(tmp_path)
    assert found.keys() == stored.keys()
    for modality, values in stored.items():
        assert found[modality] == pytest.approx(values, rel=1e-4, abs=1e-6), modality


if __name__ == "__main__":
    torch.set_num_threads(1)  # as tests run: sums of several threads can move the registration of a scan
    with tempfile.TemporaryDirectory() as directory:
        STORED.write_text(json.dumps(figures(Path(directory)), indent=2) + "\n", encoding="utf-8")
