"""Which virtual people are shown again: those of the model's diseases, in the contrasts that it is adapted to."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from halebrain.adaptation.config import AdaptConfig
from halebrain.adaptation.pairs import rehearsed_diseases, virtual_patients
from halebrain.core.config import load_config
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.models.bundle import Bundle
from halebrain.models.store import load_model
from halebrain.simulation.pathology import PATHOLOGIES

FEW = load_config(AdaptConfig, None, ["rehearsal={patients: 1, healthy: 1}"])


@pytest.fixture(scope="module")
def general() -> Bundle:
    return load_model(None)


def knows(bundle: Bundle, *pathologies: str) -> Bundle:
    return replace(bundle, training={"stage2": {"pathologies": list(pathologies)}})


def scans(*modalities: str) -> Manifest:
    return Manifest(tuple(ScanRecord(subject="u", image=Path("u.nii"), modality=m) for m in modalities), source=None)


def test_the_bundled_model_learned_from_every_virtual_disease(general: Bundle) -> None:
    assert rehearsed_diseases(general) == tuple(PATHOLOGIES.names())


def test_every_network_of_a_joined_model_counts(general: Bundle) -> None:
    several = {"stage2": {"pathologies": ["ms"]}, "stage2, segmenter 2": {"pathologies": ["tumour", "stroke"]}}
    assert rehearsed_diseases(replace(general, training=several)) == ("ms", "stroke", "tumour")
    assert rehearsed_diseases(replace(general, training={"filler": {"pathologies": ["ms"]}})) == ()


def test_what_the_model_that_it_began_with_learned_counts(general: Bundle) -> None:
    start = {"sha256": "0" * 64, "stage2": {"pathologies": ["ms"]}}
    began = replace(general, training={"stage2": {"pathologies": ["stroke"], "start": start}})
    assert rehearsed_diseases(began) == ("ms", "stroke")
    assert began.learned_diseases() == {"ms", "stroke"}


@pytest.mark.slow
def test_they_have_the_diseases_of_the_model_and_the_contrasts_of_the_scans(general: Bundle, tmp_path: Path) -> None:
    found = virtual_patients(knows(general, "stroke", "my_own"), scans("T2w", "PDw"), FEW, tmp_path / "v")
    assert found is not None
    assert [(r.subject, r.modality) for r in found] == [("healthy001", "T2w"), ("stroke001", "T2w")]
    again = virtual_patients(knows(general, "stroke"), scans("T2w"), FEW, tmp_path / "v")
    assert again is not None
    assert again.fingerprint() == found.fingerprint()


@pytest.mark.parametrize(
    ("pathologies", "modalities", "changes"),
    [
        (("my_own",), ("FLAIR",), []),
        (("ms",), ("PDw",), []),
        (("ms",), ("FLAIR",), ["rehearsal.patients=0"]),
        (("ms",), ("FLAIR",), ["tuning.rehearsed_fraction=0"]),
    ],
)
def test_there_may_be_nobody(
    general: Bundle, tmp_path: Path, pathologies: Any, modalities: Any, changes: list[str]
) -> None:
    config = load_config(AdaptConfig, None, changes)
    assert virtual_patients(knows(general, *pathologies), scans(*modalities), config, tmp_path / "v") is None
    assert not (tmp_path / "v").exists()
