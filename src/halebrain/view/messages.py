"""Requests of a page: a decision on a finding, or a mask at another threshold; strictly validated."""

import json
import unicodedata
from http import HTTPStatus
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from halebrain.view.access import RefusalError

Choice = Literal["accepted", "rejected", "open"]
DECISIONS: tuple[Choice, ...] = get_args(Choice)
NOTE_LENGTH = 500


def _one_line(note: str) -> str:
    # Controls would break the table's lines; halves of surrogate pairs cannot be written at all.
    if any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in note):
        raise ValueError("must be one line without control characters")
    return note.strip()


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
    mask_sha256: Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]


class Decide(_Message):
    """A decision on a finding.

    Args:
        mask_sha256: Of the mask that the page shows.
        lesion: Number of the finding.
        decision: One of `DECISIONS`; "open" takes an earlier one back.
        note: One line of free text; may be empty.
    """

    do: Literal["decide"] = Field(repr=False)
    lesion: Annotated[int, Field(ge=1)]
    decision: Choice
    note: Annotated[str, Field(max_length=NOTE_LENGTH), AfterValidator(_one_line)]


class Save(_Message):
    """A new mask: threshold (`None` = not changed) and smallest lesion kept."""

    do: Literal["save"] = Field(repr=False)
    threshold: Annotated[float, Field(gt=0)] | None
    min_lesion_mm3: Annotated[float, Field(ge=0)]


_KNOWN: TypeAdapter[Decide | Save] = TypeAdapter(Annotated[Decide | Save, Field(discriminator="do")])


def parse_message(raw: bytes) -> Decide | Save:
    """Return what the body of a request asks for: a JSON object with exactly the keys and types that are known."""
    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
        return _KNOWN.validate_python(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the body"
        raise RefusalError(HTTPStatus.BAD_REQUEST, f"{place}: {first['msg']}") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise RefusalError(HTTPStatus.BAD_REQUEST, "the body must be JSON") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found
