"""BIDS names: what is read from one, and what is made of one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halebrain.io.bids import ENTITIES, BidsName, parse_name

LABELS = st.text("azAZ09+", min_size=1, max_size=4)
KEYS = st.lists(st.sampled_from(ENTITIES[1:-1]), unique=True, max_size=5)


@given(LABELS, st.dictionaries(st.sampled_from(ENTITIES[1:]), LABELS, max_size=5))
def test_a_name_is_read_as_it_was_made(subject, others):
    name = BidsName({"sub": subject} | others, "T1w")
    assert parse_name(name.stem) == name


@given(KEYS)
def test_the_order_of_the_keys_does_not_matter(keys):
    forward = BidsName({"sub": "1"} | dict.fromkeys(keys, "x"), "T1w")
    backward = BidsName(dict.fromkeys(reversed(keys), "x") | {"sub": "1"}, "T1w")
    assert forward.stem == backward.stem
    assert forward.stem.startswith("sub-1_")


@pytest.mark.parametrize(
    ("stem", "mask", "image"),
    [
        ("sub-01_FLAIR", "sub-01_rec-FLAIR_desc-anomaly_mask", "sub-01_desc-anomaly_FLAIR"),
        ("sub-01_run-1_T1w", "sub-01_rec-T1w_run-1_desc-anomaly_mask", "sub-01_run-1_desc-anomaly_T1w"),
        (
            "sub-01_acq-a_rec-norm_run-1_T1w",
            "sub-01_acq-a_rec-normT1w_run-1_desc-anomaly_mask",
            "sub-01_acq-a_rec-norm_run-1_desc-anomaly_T1w",
        ),
        (
            "sub-01_space-x_desc-preproc_T1w",
            "sub-01_rec-T1w_space-x_desc-preprocanomaly_mask",
            "sub-01_space-x_desc-preprocanomaly_T1w",
        ),
    ],
)
def test_names_of_what_is_made_of_a_scan(stem, mask, image):
    name = parse_name(stem)
    assert name.derived("anomaly", "mask").stem == mask
    assert name.derived("anomaly").stem == image


@pytest.mark.parametrize(
    "stem",
    ["scan 7", "sub-01", "T1w", "ses-1_T1w", "sub-01_sub-02_T1w", "sub-_T1w", "sub-0 1_T1w", "sub-01_what-1_T1w"],
)
def test_what_is_no_name(stem):
    assert parse_name(stem) is None


def test_contrast_agent():
    assert parse_name("sub-1_ce-gad_T1w").modality == "T1ce"
    assert parse_name("sub-1_T1w").modality == "T1w"
