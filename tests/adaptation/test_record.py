"""What an adapted model says of itself."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from halebrain.adaptation.config import AdaptConfig
from halebrain.adaptation.run import adaptation_identity, adapted_about
from halebrain.adaptation.scans import AdaptScans
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.models.bundle_files import About

ABOUT = About(
    licence="CC-BY-4.0",
    citation="A, 2025.",
    authors=("A",),
    data="Ten brains.",
    figures=("AUPRC 0.4",),
    limits={"T1w": "finds little", "T2w": "finds less"},
)


def test_figures_go_and_limits_of_what_was_learned_too() -> None:
    new = adapted_about(ABOUT, {"steps": 100, "modalities": ["T1w"]})
    assert new is not None
    assert (new.figures, new.limits) == ((), {"T2w": "finds less"})
    assert (new.licence, new.citation, new.data) == (ABOUT.licence, ABOUT.citation, ABOUT.data)


def test_without_a_step_it_is_the_same_model() -> None:
    assert adapted_about(ABOUT, {"steps": 0, "modalities": ["T1w"]}) == ABOUT
    assert adapted_about(None, {"steps": 100, "modalities": ["T1w"]}) is None


@pytest.mark.parametrize("other", [{"space": "MNI152NLin2009cAsym"}, {"subject": "b"}, {"pathology": "stroke"}])
def test_a_row_that_says_something_else_is_another_adaptation(tmp_path, other):
    image = tmp_path / "x.nii"
    image.write_bytes(b"x")
    row, none = ScanRecord("a", image, "FLAIR", pathology="ms"), Manifest(())
    model = SimpleNamespace(sha256="m", calibration={})
    identities = {
        adaptation_identity(model, AdaptScans(Manifest((one,)), none, none), AdaptConfig())
        for one in (row, replace(row), replace(row, **other))
    }
    assert len(identities) == 2
