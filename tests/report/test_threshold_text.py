"""What is said of a threshold is plain for each kind of it, and claims no more than is known."""

import pytest

from halebrain.report.threshold_text import marking_text, promise


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ml:1", "Threshold ml:1: the median healthy scan shows at most 1 ml in vain."),
        ("ml:0.1", "Threshold ml:0.1: the median healthy scan shows at most 0.1 ml in vain."),
        ("fpr:0.05", "Threshold fpr:0.05: at most 5 % of the voxels of healthy brains are marked in vain."),
        ("dice", "Threshold dice: it outlined the lesions of annotated scans best (Dice over all their voxels)."),
        ("fixed", "The threshold was given as a number."),
        ("odd", "Threshold odd."),
        (
            "ml:1@ours",
            "Threshold ml:1: the median healthy scan shows at most 1 ml in vain. Chosen on validation scans of ours.",
        ),
        (
            "ml:1 (all modalities: FLAIR, T2w)",
            "Chosen on validation scans of other contrasts (FLAIR, T2w), as this one has none of its own.",
        ),
        (
            "ml:1@ours (of T1w)",
            "Chosen on validation scans of ours of another contrast (T1w), as this one has none of its own.",
        ),
    ],
)
def test_every_kind_of_threshold_is_told_in_words(name: str, says: str) -> None:
    text = marking_text({"value": 0.5481, "name": name, "min_lesion_mm3": 0.0})
    assert text.startswith("A voxel is marked where its anomaly score is at least 0.548. ")
    assert text.endswith(says)


def test_a_limit_that_more_than_the_median_person_keeps_says_so() -> None:
    text = marking_text({"value": 0.5, "name": "ml:1", "healthy_share": 0.9, "n_scans": 42})
    assert text.endswith(
        "Threshold ml:1: 90 % of healthy scans show at most 1 ml in vain. Chosen on 42 validation scans."
    )
    median = marking_text({"value": 0.5, "name": "ml:1", "healthy_share": 0.5})
    assert "the median healthy scan shows at most 1 ml" in median


def test_contrast_smallest_piece_and_number_of_scans_are_told_where_they_are_known() -> None:
    about = {"value": 0.5, "name": "ml:0.5", "min_lesion_mm3": 20.0, "modality": "FLAIR", "n_scans": 10}
    text = marking_text(about)
    assert text.startswith(
        "FLAIR. A voxel is marked where its anomaly score is at least 0.500; pieces smaller than 20 mm³"
    )
    assert text.endswith("Chosen on 10 validation scans.")
    assert marking_text(about | {"n_scans": 1}).endswith("Chosen on 1 validation scan.")


@pytest.mark.parametrize("key", ["ml:", "ml:much", "fpr:x", "", "ml"])
def test_what_is_not_known_is_not_promised(key: str) -> None:
    assert promise(key) == ""
