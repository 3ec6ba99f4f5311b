"""The figures of the demo with the bundled model: a change of the code that is no change of the method leaves them.

Another processor adds in another order, and a registration ends a fraction of a voxel elsewhere, which moves every
figure: so the placements are stored beside the figures, and taken instead of being sought. The noise of a scan depends
on its content to the bit, and a virtual patient made on another processor differs in a few voxels by a rounding: the
tolerances are half again to three times what two processors were apart.

A new model, or a new virtual patient, changes them for a reason: `python tests/workflows/test_figures.py` writes them
again.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from halebrain.core.types import Affine, MaskArray, Volume
from halebrain.preprocessing import pipeline
from halebrain.preprocessing.registration import (
    Brain,
    Registration,
    assess_placement,
    prepare_brain,
    register_to_template,
)
from halebrain.preprocessing.template import Template
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


class Placements:
    """Takes the place of the registration: hands out known placements, scan by scan, or seeks and keeps them."""

    def __init__(self, known: list[list[list[float]]] | None = None) -> None:
        self.known: Iterator[list[list[float]]] | None = None if known is None else iter(known)
        self.found: list[list[list[float]]] = []

    def __call__(
        self,
        volume: Volume,
        brain_mask: MaskArray,
        *,
        near: Affine | None,
        template: Template | None,
        engine: str,
        brain: Brain | None,
    ) -> Registration:
        """Return the placement of the next scan."""
        if self.known is None:
            found = register_to_template(volume, brain_mask, near=near, template=template, engine=engine, brain=brain)
        else:
            brain = brain or prepare_brain(volume, brain_mask)
            found = assess_placement(brain, np.array(next(self.known)), template=template, engine=engine)
        self.found.append(found.template_to_native.tolist())
        return found


def figures(folder: Path, placements: Placements) -> dict[str, dict[str, float]]:
    """Run the demo of 2 mm; return for each contrast its metrics, and two sums over each map."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "register_to_template", placements)
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


FAR = {
    "auprc": 0.02,
    "dice": 0.05,
    "found_volume_ml": 0.15,
    "false_positive_volume": 0.3,
    "pseudohealthy": 0.01,
    "residual": 0.15,
    "uncertainty": 0.5,
    "segmenter_probseg": 0.1,
    "anomaly_probseg": 0.1,
    "anomaly_mask": 0.15,
}
"""Figure, or map → the relative tolerance of what another noise moves."""


def tolerance(key: str) -> float:
    """Return the relative tolerance of a figure."""
    return next((far for name, far in FAR.items() if key.startswith(name)), 1e-4)


@pytest.mark.slow
def test_the_figures_of_the_bundled_model_stay(tmp_path):
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    placements = Placements(stored["placements"])
    found = figures(tmp_path, placements)
    assert len(placements.found) == len(stored["placements"])
    assert found.keys() == stored["figures"].keys()
    for modality, values in stored["figures"].items():
        assert found[modality].keys() == values.keys()
        for key, value in values.items():
            assert found[modality][key] == pytest.approx(value, rel=tolerance(key), abs=1e-6), (modality, key)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sought = Placements()
    with tempfile.TemporaryDirectory() as directory:
        document = {"figures": figures(Path(directory), sought), "placements": sought.found}
        STORED.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
