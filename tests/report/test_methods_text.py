"""The methods paragraph says what the provenance says, and numbers its references as they come."""

import re
from typing import Any

import pytest

from halebrain.report.methods_text import CITED, methods_text
from stated import provenance

BEHRENDT, FONOV, TUSTISON, SIMPLEITK, GREEDY, ANTS, HDBET = (
    CITED[name] for name in ("behrendt", "fonov", "tustison", "simpleitk", "greedy", "ants", "hdbet")
)

STEPS = [
    {"step": "brain", "method": "hdbet"},
    {"step": "registration", "method": "affine (greedy)"},
    {"step": "denoising", "method": "curvature flow", "iterations": 3},
    {"step": "resample", "shape": [96, 96, 80], "spacing_mm": 2.0},
    {"step": "bias correction", "method": "n4"},
    {"step": "intensity", "percentiles": [1.0, 99.0]},
]
FULL = {
    "steps": STEPS,
    "space": "MNI152NLin2009aSym",
    "levels": [250, 500],
    "draws": 2,
    "seed": 3,
    "method": {"reconstructor": "cddpm", "segmenter": True, "residual": "ssim", "residual_weight": 0.25},
    "threshold": {"value": 0.41234, "name": "fpr:0.01", "min_lesion_mm3": 20.0},
    "versions": {"halebrain": "1.2.3"},
    "model_sha256": "abcdef0123456789",
}


def said(about: dict[str, Any]) -> tuple[str, list[str]]:
    return methods_text(provenance(**about))


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("affine (simpleitk, through infants01_T1w)", "affine transform with SimpleITK"),
        ("affine (ants, through a_T1w)", "affine transform with ANTs"),
        ("affine (none, through infants01_T1w)", "registered rigidly to another one of the exam"),
    ],
)
def test_the_name_of_another_scan_names_no_engine(method: str, words: str) -> None:
    text, references = said(FULL | {"steps": [{"step": "registration", "method": method}]})
    assert words in text
    assert (ANTS in references) == ("ANTs" in words)


def test_a_residual_that_is_evidence_is_said_as_a_formula() -> None:
    method = {"residual": "normalised_leaning", "residual_weight": 0.4, "fusion": "log_odds", "evidence": ["FLAIR"]}
    made = provenance(**FULL | {"method": {**FULL["method"], **method}})
    text, _ = methods_text(made, contrast="FLAIR")
    for other in ("T1ce", None):
        assert "The anomaly score is the probability" in methods_text(made, contrast=other)[0]
    assert "The anomaly score is σ(logit(probability) + 0.4 × z), with z the residual in standard deviations of" in text
    assert "half, where its sign is the one that lesions seldom have" in text
    assert "× probability" not in text


def test_everything_that_is_known_is_said() -> None:
    text, references = said(FULL)
    for part in (
        "HD-BET [1]",
        "MNI152NLin2009aSym [2]",
        "Greedy [3]",
        "96×96×80 voxels of 2 mm",
        "3 steps of curvature flow",
        "N4 [4]",
        "percentiles 1 and 99",
        "(cddpm)",
        "levels 250, 500, 2 noise samples each",
        "[5]",
        "0.25 × residual (ssim) + 0.75 × probability",
        "at least 0.4123 (“fpr:0.01” of the model)",
        "smaller than 20 mm³",
        "HaleBrain 1.2.3, model abcdef012345, seed 3.",
    ):
        assert part in text, part
    assert references == [HDBET, FONOV, GREEDY, TUSTISON, BEHRENDT]


@pytest.mark.parametrize(
    ("changes", "absent", "references"),
    [
        ({"steps": [STEPS[0] | {"method": "stripped"}, STEPS[1] | {"method": "none"}]}, ["N4", "Greedy"], {FONOV}),
        ({"steps": [STEPS[1] | {"method": "affine (ants)"}]}, ["SimpleITK", "Greedy"], {ANTS, FONOV}),
        ({"steps": [STEPS[1] | {"method": "affine (simpleitk)"}]}, ["ANTs", "Greedy"], {SIMPLEITK, FONOV}),
        # As earlier versions wrote.
        ({"steps": [STEPS[1] | {"method": "rigid, affine (ANTs)"}]}, ["SimpleITK", "Greedy"], {ANTS, FONOV}),
        ({"steps": [STEPS[1] | {"method": "rigid, affine (Mattes MI)"}]}, ["ANTs", "Greedy"], {SIMPLEITK, FONOV}),
        ({"steps": [STEPS[1]], "space": "ownatlas"}, ["MNI"], {GREEDY}),
        ({"steps": [STEPS[4] | {"method": "none"}], "threshold": None}, ["N4", "anomalous"], set()),
    ],
)
def test_what_was_not_done_is_not_claimed(changes: dict[str, Any], absent: list[str], references: set[str]) -> None:
    text, cited = said(FULL | changes)
    assert not [word for word in absent if word in text]
    assert set(cited) == references | {BEHRENDT}


def test_one_level_alone_is_not_averaged() -> None:
    assert "probability, averaged over levels." in said(FULL)[0]
    assert "averaged" not in said(FULL | {"levels": [250]})[0]


def test_smoothing_is_told_where_it_was_done() -> None:
    smooth = FULL["method"] | {"through_plane_mm": 8.0}
    assert "across slices (Gaussian, standard deviation 8 mm)" in said(FULL | {"method": smooth})[0]
    both = said(FULL | {"method": smooth | {"through_plane_mm": 3.0, "around_mm": 16.0}})[0]
    assert "across slices (geometric mean of two Gaussians, standard deviations 3 and 16 mm)" in both
    alone = methods_text(
        provenance(**(FULL | {"method": FULL["method"] | {"through_plane_mm": 0.0, "around_mm": 16.0}}))
    )[0]
    threshold = {"threshold": {**(FULL.get("threshold") or {}), "modality": "FLAIR"}}
    for name, expected in (("FLAIR", "two Gaussians, standard deviations 3 and 16 mm"), ("T2w", "(Gaussian")):
        own = smooth | {"through_plane_by_contrast": {name: [3.0, 16.0]}}
        assert expected in said(FULL | threshold | {"method": own})[0]
    assert "across slices (geometric mean with a Gaussian, standard deviation 16 mm)" in alone
    assert "across slices" not in said(FULL)[0]


def test_mirroring_is_told_where_it_was_done() -> None:
    assert "original and mirrored [" in said(FULL | {"method": FULL["method"] | {"mirror": True}})[0]
    assert "original and shifted [" in said(FULL | {"method": FULL["method"] | {"overlap": True}})[0]
    assert "mirrored" not in said(FULL)[0]
    assert "shifted" not in said(FULL)[0]


def test_what_is_not_scored_is_told() -> None:
    text = said(FULL | {"method": FULL["method"] | {"lowest_z_mm": -62.0}})[0]
    assert "Nothing was scored below z = -62 mm of the template, where the spinal cord begins." in text
    assert "spinal cord" not in said(FULL)[0]


def test_a_model_without_a_segmenter_does_not_cite_one() -> None:
    text, cited = said(FULL | {"method": {"reconstructor": "ddpm", "segmenter": False}})
    assert "segmentation network" not in text
    assert BEHRENDT not in cited


def test_every_number_has_its_reference() -> None:
    text, cited = said(FULL)
    assert [int(n) for n in re.findall(r"\[(\d)\]", text)] == list(range(1, len(cited) + 1))
    assert "{" not in text


def test_the_reconstructor_brings_its_own_reference() -> None:
    source = "Somebody. A reconstructor. Somewhere 2020."
    text, references = methods_text(
        provenance(**(FULL | {"method": FULL["method"] | {"reconstructor_reference": source}}))
    )
    assert "(cddpm [5])" in text
    assert references[4:] == [source, BEHRENDT]


def test_networks_of_their_own_contrasts_are_told_as_they_were_asked() -> None:
    each = FULL["method"] | {"contrasts": [["T1w"], ["T2w"], ["FLAIR", "T1w"]]}
    threshold = FULL["threshold"]

    def text(shown: str | None) -> str:
        return said(FULL | {"method": each, "threshold": threshold | {"modality": shown}})[0]

    assert "A segmentation network trained on T2w scans processed" in text("T2w")
    told = "2 segmentation networks (one trained on T1w, the other on FLAIR and T1w scans; averaged) processed"
    assert told in text("T1w")
    assert "3 segmentation networks (averaged) processed" in text(None)
    assert "2 segmentation networks (one trained on T1w, the other" in text("T1ce")  # tissues in T1w's order
    assert "A segmentation network processed" in said(FULL)[0]


def test_two_networks_of_one_contrast_and_the_one_for_the_rest_are_told_with_what_each_sees() -> None:
    each = {
        "contrasts": [["T1w"], ["T2w"], ["T2w"], []],
        "neighbours": [-1, 1],
        "neighbours_each": [[1], [-1, 1], [], []],
    }
    method = FULL["method"] | each

    def text(shown: str | None, **changed: object) -> str:
        about = {"method": method | changed, "threshold": FULL["threshold"] | {"modality": shown}}
        return said(FULL | about)[0]

    beside = "with the neighbouring slices of the scan"
    pair = "processed each pair of scan and reconstruction"
    two = f"2 segmentation networks trained on T2w scans (averaged) {pair}"
    assert f"{two}, one of them {beside} [" in text("T2w")
    assert f"A segmentation network trained on T1w scans {pair}, {beside} [" in text("T1w")
    assert f"The segmentation network for all other contrasts {pair} [" in text("PDw")
    # An earlier version said what all of them see together.
    assert f"{two}, {beside} [" in text("T2w", neighbours_each=[])
