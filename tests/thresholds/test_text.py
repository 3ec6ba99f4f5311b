"""What is said of a threshold is plain for each kind of it, and claims no more than is known."""

import pytest

from halebrain.thresholds.text import marking_text, promise, threshold_name
from stated import threshold


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ml:1", "Threshold ml:1: the median healthy scan has a false-positive volume of at most 1 ml."),
        ("ml:0.1", "Threshold ml:0.1: the median healthy scan has a false-positive volume of at most 0.1 ml."),
        ("fpr:0.05", "Threshold fpr:0.05: at most 5 % of the voxels of healthy brains are false positives."),
        ("dice", "Threshold dice: it gave the best Dice over all voxels of annotated scans."),
        ("fixed", "The threshold was set by hand."),
        ("odd", "Threshold odd."),
        (
            "ml:1@ours",
            "the median healthy scan has a false-positive volume of at most 1 ml. Chosen on validation scans of ours.",
        ),
        (
            "ml:1 (all modalities: FLAIR, T2w)",
            "Chosen on validation scans of other contrasts (FLAIR, T2w), as this contrast has no own threshold.",
        ),
        (
            "ml:1@ours (of T1w)",
            "Chosen on validation scans of ours of another contrast (T1w), as this contrast has no own threshold.",
        ),
    ],
)
def test_every_kind_of_threshold_is_told_in_words(name: str, says: str) -> None:
    text = marking_text(threshold(value=0.5481, name=name, min_lesion_mm3=0.0))
    assert text.startswith("A voxel is marked where its anomaly score is at least 0.548. ")
    assert text.endswith(says)


@pytest.mark.parametrize(
    ("data_set", "source", "contrast", "name"),
    [
        (None, [], "FLAIR", "ml:1"),
        ("ours", [], None, "ml:1@ours"),
        ("ours", ["T1w"], "T1ce", "ml:1@ours (of T1w)"),
        (None, ["T1w"], "FLAIR", "ml:1 (all modalities: T1w)"),
        (None, ["FLAIR", "T2w"], None, "ml:1 (all modalities: FLAIR, T2w)"),
    ],
)
def test_the_fields_say_what_the_name_of_earlier_results_said(
    data_set: str | None, source: list[str], contrast: str | None, name: str
) -> None:
    assert threshold_name("ml:1", data_set, source, contrast) == name
    fields = {"key": "ml:1", "data_set": data_set, "source_contrasts": source}
    about = {"value": 0.5, "name": name, "n_scans": 7}
    earlier = threshold(**about)
    assert marking_text(threshold(**about, **fields)) == marking_text(earlier)
    assert marking_text(threshold(**(about | fields | {"name": "any"}))) == marking_text(earlier), (
        "the name is not read"
    )
    assert "set by hand" in marking_text(earlier.fixed_at(0.4))


def test_a_limit_that_more_than_the_median_person_keeps_says_so() -> None:
    text = marking_text(threshold(value=0.5, name="ml:1", healthy_share=0.9, n_scans=42))
    assert text.endswith(
        "Threshold ml:1: 90 % of healthy scans have a false-positive volume of at most 1 ml. "
        "Chosen on 42 validation scans."
    )
    median = marking_text(threshold(value=0.5, name="ml:1", healthy_share=0.5))
    assert "the median healthy scan has a false-positive volume of at most 1 ml" in median


def test_contrast_smallest_piece_and_number_of_scans_are_told_where_they_are_known() -> None:
    about = {"value": 0.5, "name": "ml:0.5", "min_lesion_mm3": 20.0, "modality": "FLAIR", "n_scans": 10}
    text = marking_text(threshold(**about))
    assert text.startswith(
        "FLAIR. A voxel is marked where its anomaly score is at least 0.500; connected components smaller than 20 mm³"
    )
    assert text.endswith("Chosen on 10 validation scans.")
    assert marking_text(threshold(**(about | {"n_scans": 1}))).endswith("Chosen on 1 validation scan.")


@pytest.mark.parametrize("key", ["ml:", "ml:much", "fpr:x", "", "ml"])
def test_what_is_not_known_is_not_promised(key: str) -> None:
    assert promise(key) == ""
