"""Requests of a page: a decision on a finding, or a mask at another threshold; strictly validated."""

import json
import math
import re
import unicodedata
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from halebrain.view.errors import RefusalError

DECISIONS = ("accepted", "rejected", "open")
NOTE_LENGTH = 500
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Decide:
    """A decision on a finding.

    Args:
        mask_sha256: Of the mask that the page shows.
        lesion: Number of the finding.
        decision: One of `DECISIONS`; "open" takes an earlier one back.
        note: One line of free text; may be empty.
    """

    mask_sha256: str
    lesion: int
    decision: str
    note: str


@dataclass(frozen=True)
class Save:
    """A new mask.

    Args:
        mask_sha256: Of the mask that the page shows, which is to be replaced.
        threshold: Above 0; `None` = not changed.
        min_lesion_mm3: Smallest lesion kept.
    """

    mask_sha256: str
    threshold: float | None
    min_lesion_mm3: float


def parse_message(raw: bytes) -> Decide | Save:
    """Return what the body of a request asks for.

    Raises:
        RefusalError: It is no JSON object with exactly the keys and types that are known.
    """
    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _bad("the body must be JSON") from error
    if not isinstance(found, dict):
        raise _bad("the body must be a JSON object")
    keys = {"decide": {"lesion", "decision", "note"}, "save": {"threshold", "min_lesion_mm3"}}
    do = found.pop("do", None)
    if not isinstance(do, str) or do not in keys:
        raise _bad("'do' must be decide or save")
    if set(found) != keys[do] | {"mask_sha256"}:
        raise _bad(f"'{do}' must have the keys mask_sha256, {', '.join(sorted(keys[do]))} and no other")
    mask = found["mask_sha256"]
    if not isinstance(mask, str) or not _SHA256.fullmatch(mask):
        raise _bad("'mask_sha256' must be 64 hexadecimal digits")
    if do == "save":
        threshold = None if found["threshold"] is None else _number(found, "threshold")
        if threshold is not None and threshold <= 0:
            raise _bad("'threshold' must be above 0")
        return Save(mask, threshold, _number(found, "min_lesion_mm3"))
    return Decide(mask, _lesion(found["lesion"]), _decision(found["decision"]), _note(found["note"]))


def _lesion(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _bad("'lesion' must be a whole number from 1")
    return value


def _decision(value: Any) -> str:
    if not isinstance(value, str) or value not in DECISIONS:
        raise _bad(f"'decision' must be one of {', '.join(DECISIONS)}")
    return value


def _note(value: Any) -> str:
    if not isinstance(value, str) or len(value) > NOTE_LENGTH:
        raise _bad(f"'note' must be a text of at most {NOTE_LENGTH} characters")
    # Controls would break the table's lines; halves of surrogate pairs cannot be written at all.
    if any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in value):
        raise _bad("'note' must be one line without control characters")
    return value.strip()


def _number(found: dict[str, Any], key: str) -> float:
    value = found[key]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _bad(f"'{key}' must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not 0 <= number < math.inf:
        raise _bad(f"'{key}' must be finite and not below 0")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _bad(message: str) -> RefusalError:
    return RefusalError(HTTPStatus.BAD_REQUEST, message)
