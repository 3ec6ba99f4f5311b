"""What an adapted model says of itself."""

from halebrain.adaptation.run import adapted_about
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
