"""What a page asks for is taken to the letter or not at all."""

import json
from typing import Any

import pytest

from halebrain.view.access import RefusalError
from halebrain.view.messages import NOTE_LENGTH, Decide, Save, parse_message

MASK = "0" * 64
DECIDE = {"do": "decide", "mask_sha256": MASK, "lesion": 1, "decision": "rejected", "note": " sinus, “flow” "}
SAVE = {"do": "save", "mask_sha256": MASK, "threshold": 0.25, "min_lesion_mm3": 50}


def test_what_is_known_is_read() -> None:
    assert parse_message(json.dumps(DECIDE).encode()) == Decide(**DECIDE)
    assert parse_message(json.dumps(DECIDE).encode()).note == "sinus, “flow”"
    assert parse_message(json.dumps(SAVE).encode()) == Save(**SAVE)
    assert parse_message(json.dumps(SAVE | {"threshold": None}).encode()).threshold is None


@pytest.mark.parametrize(
    "change",
    [
        *({"do": what} for what in ("", "delete", None, 1, ["decide"])),
        *({"mask_sha256": mask} for mask in ("", "0" * 63, "g" * 64, "0" * 64 + "\n", 0, None)),
        *({"lesion": number} for number in (0, -1, 1.0, True, "1", None, [1])),
        *({"decision": what} for what in ("", "maybe", None, 1, ["rejected"])),
        *({"note": note} for note in (None, 1, "a" * (NOTE_LENGTH + 1), "a\nb", "a\tb", "\x00", "\ud800", "\u2028")),
        {"more": 1},
    ],
)
def test_a_decision_of_another_form_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RefusalError) as refused:
        parse_message(json.dumps(DECIDE | change).encode())
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "change",
    [
        *({"threshold": value} for value in (0, -1, True, "0.5", [0.5], 10**400)),
        *({"min_lesion_mm3": value} for value in (-1, None, False, "50", {})),
        {"more": 1},
    ],
)
def test_a_threshold_of_another_form_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RefusalError):
        parse_message(json.dumps(SAVE | change).encode())


@pytest.mark.parametrize("key", sorted(DECIDE))
def test_every_key_must_be_there(key: str) -> None:
    with pytest.raises(RefusalError):
        parse_message(json.dumps({k: v for k, v in DECIDE.items() if k != key}).encode())


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"{", b"[]", b"null", b'"decide"', b"\xff", b"[" * 10_000, b"{'do': 1}"),
        json.dumps(SAVE).replace("0.25", "NaN").encode(),
        json.dumps(SAVE).replace("0.25", "Infinity").encode(),
        json.dumps(SAVE).replace("0.25", "1e999").encode(),
        json.dumps(DECIDE).replace('"lesion"', '"note": "", "lesion"').encode(),
        json.dumps(SAVE).encode("utf-16"),
    ],
)
def test_what_is_no_strict_json_is_refused(raw: bytes) -> None:
    with pytest.raises(RefusalError):
        parse_message(raw)
