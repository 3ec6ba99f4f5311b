"""What results state of themselves: stored documents are read and written again without a change."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from halebrain.core.errors import DataError
from halebrain.core.provenance import (
    ChosenThreshold,
    ProcessingStep,
    Provenance,
    QualityReport,
    ScoringMethod,
    read_provenance,
)

DOCUMENTS = Path(__file__).parent / "documents"
STORED = ("stripped", "raw_head", "flagged", "prepared_scan", "bids")
SAID = {"rule": "it must be so", "where": Path("x.json"), "remedy": "do it again"}


def text(name: str) -> str:
    return (DOCUMENTS / f"{name}.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", STORED)
def test_a_stored_provenance_is_written_as_it_was_read(name: str) -> None:
    made = read_provenance(DOCUMENTS / f"{name}.json")
    assert made.more == {}
    assert made.qc.more == {}
    assert json.dumps(made.to_json(), indent=2) + "\n" == text(name), "fields, order and values"


def test_the_report_and_the_steps_of_a_prepared_scan_are_written_as_they_were_read() -> None:
    sidecar = json.loads(text("prepared_sidecar"))
    assert json.dumps(QualityReport.from_json(sidecar["qc"], **SAID).to_json()) == json.dumps(sidecar["qc"])
    steps = [ProcessingStep.from_json(step, **SAID).to_json() for step in sidecar["steps"]]
    assert json.dumps(steps) == json.dumps(sidecar["steps"])


def test_typed_values() -> None:
    made = read_provenance(DOCUMENTS / "flagged.json")
    assert made.threshold is not None
    assert (made.threshold.value, made.threshold.modality_known_from) == (0.3, "file name")
    assert made.qc.registration_failed
    assert made.qc.out_of_distribution_reasons == made.qc.flags[:2]
    assert isinstance(made.method, ScoringMethod)
    assert [step.step for step in made.steps][:2] == ["brain", "registration"]
    assert made.template_to_native is not None
    assert len(made.template_to_native) == 4


def test_what_other_versions_wrote_is_kept() -> None:
    found = {"scan": "a", "of_tomorrow": {"x": [1]}, "threshold": {"value": 0.5, "name": "dice"}, "qc": {"flags": []}}
    made = Provenance.from_json(found, **SAID)
    assert made.to_json() == found
    assert (made.n_lesions, made.qc.out_of_distribution) == (None, False)
    changed = replace(made, n_lesions=2, qc=made.qc.flagged("a child", withholds=True)).to_json()
    assert changed["n_lesions"] == 2
    assert changed["qc"] == {
        "flags": ["a child"],
        "out_of_distribution": True,
        "out_of_distribution_reasons": ["a child"],
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threshold": 3}, "3 instead of an object at 'threshold'"),
        ({"threshold": {"name": "dice"}}, "instead of an object with the key value at 'threshold'"),
        ({"template_to_native": "x"}, "\"x\" instead of a list of 4 at 'template_to_native'"),
        ({"template_to_native": [[1, 0, 0, 0]]}, "instead of a list of 4 at 'template_to_native'"),
        ({"steps": ["registration"]}, "\"registration\" instead of an object at 'steps[0]'"),
        ({"qc": {"flags": "thick"}}, "\"thick\" instead of a list at 'qc.flags'"),
        ({"qc": {"brain_volume_ml": True}}, "true instead of a number at 'qc.brain_volume_ml'"),
        ({"qc": {"out_of_distribution": 1}}, "1 instead of true or false at 'qc.out_of_distribution'"),
        ({"seed": 1.5}, "1.5 instead of a whole number at 'seed'"),
        ({"versions": {"halebrain": 1}}, "1 instead of a text at 'versions.halebrain'"),
        ({"scan_score_healthy": [0.1, "x"]}, "\"x\" instead of a number at 'scan_score_healthy[1]'"),
    ],
)
def test_a_damaged_document_is_refused_with_its_place(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "a_provenance.json"
    path.write_text(json.dumps(json.loads(text("bids")) | change))
    with pytest.raises(DataError) as caught:
        read_provenance(path)
    assert said in str(caught.value)
    assert "as halebrain detect wrote it" in str(caught.value)
    assert path.name in str(caught.value)


def test_flags_do_not_depend_on_who_comes_first() -> None:
    report = QualityReport(flags=("thick slices",))
    one = report.flagged("a PET", withholds=True).flagged("its name says PET", withholds=True).noting(["no qform"])
    other = report.noting(["no qform"]).flagged("its name says PET", withholds=True).flagged("a PET", withholds=True)
    assert set(one.flags) == set(other.flags) == {"no qform", "thick slices", "a PET", "its name says PET"}
    assert set(one.out_of_distribution_reasons) == set(other.out_of_distribution_reasons)
    assert report.flags == ("thick slices",)
    assert one.flagged("a PET") is one
    assert one.flagged(None) is one


def test_a_threshold_set_by_hand_forgets_how_the_earlier_one_was_chosen() -> None:
    stored = ChosenThreshold.from_json({"value": 0.5, "name": "ml:1 (of T1w)", "method": "median"}, **SAID)
    assert stored.fixed_at(0.4).to_json() == {
        "value": 0.4,
        "name": "fixed",
        "key": "fixed",
        "data_set": None,
        "source_contrasts": [],
        "method": None,
    }
