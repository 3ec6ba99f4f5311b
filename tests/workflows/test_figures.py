"""The figures of the demo with the bundled model: a change of the code that is no change of the method leaves them.

Another processor adds in another order, and that moves every figure in two ways that say nothing of the method, so
both are stored beside the figures and taken from there. A registration ends a fraction of a voxel elsewhere. And the
virtual patient is another to the bit (17 voxels of a FLAIR round to the next whole number): as the content of a scan
seeds its noise, another noise is drawn, which is worth .03 of AUPRC and a third of the uncertainty in this patient.
What rounding still moves, a region that the second look just takes in or leaves out, has the tolerance that one thread
and two needed.

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

from halebrain.core.provenance import QualityReport
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


class Contents:
    """Hands out the known hashes of the content of scans, which seed their noise, or takes and keeps the real ones."""

    def __init__(self, known: list[str] | None = None) -> None:
        self.known: Iterator[str] | None = None if known is None else iter(known)
        self.found: list[str] = []
        self._look = pipeline._look

    def __call__(self, volume: Volume, brain_mask: MaskArray) -> tuple[bytes, QualityReport]:
        """Return the hash of the next scan, and what was measured on its native grid."""
        content, report = self._look(volume, brain_mask)
        if self.known is not None:
            content = bytes.fromhex(next(self.known))
        self.found.append(content.hex())
        return content, report


def figures(folder: Path, placements: Placements, contents: Contents) -> dict[str, dict[str, float]]:
    """Run the demo of 2 mm; return for each contrast its metrics, and two sums over the scan and each map."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "register_to_template", placements)
        patch.setattr(pipeline, "_look", contents)
        result = run_patient_demo(folder, DemoSettings(spacing_mm=2.0, device="cpu", notify=lambda *_: None))
    found = {}
    for scan in result.scans:
        values = {key: value for key, value in scan.document().items() if isinstance(value, int | float)}
        del values["seconds"]
        files = {"scan": scan.record.image}
        for name in MAPS:
            (files[name],) = (
                file for file in (folder / "detection").glob(f"*{name}*.nii.gz") if scan.record.modality in file.name
            )
        for name, path in files.items():
            data = np.asarray(nibabel.load(path).dataobj, dtype=np.float64)
            values |= {f"{name}_sum": float(data.sum()), f"{name}_squares": float((data**2).sum())}
        found[scan.record.modality] = values
    return found


FAR = {
    "auprc": 0.005,
    "dice": 0.01,
    "found_volume_ml": 0.02,
    "false_positive_volume": 0.03,
    "residual": 0.15,
    "uncertainty": 0.1,
    "segmenter_probseg": 0.01,
    "anomaly_probseg": 0.01,
    "anomaly_mask": 0.02,
}
"""Figure, or map → the relative tolerance of what rounding moves."""


def tolerance(key: str) -> float:
    """Return the relative tolerance of a figure."""
    return next((far for name, far in FAR.items() if key.startswith(name)), 1e-4)


@pytest.mark.slow
def test_the_figures_of_the_bundled_model_stay(tmp_path):
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    placements, contents = Placements(stored["placements"]), Contents(stored["contents"])
    found = figures(tmp_path, placements, contents)
    assert len(placements.found) == len(stored["placements"])
    assert len(contents.found) == len(stored["contents"])
    assert found.keys() == stored["figures"].keys()
    for modality, values in stored["figures"].items():
        assert found[modality].keys() == values.keys()
        for key, value in values.items():
            assert found[modality][key] == pytest.approx(value, rel=tolerance(key), abs=1e-6), (modality, key)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sought, taken = Placements(), Contents()
    with tempfile.TemporaryDirectory() as directory:
        made = figures(Path(directory), sought, taken)
        document = {"figures": made, "placements": sought.found, "contents": taken.found}
        STORED.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
