"""Whether the results of an earlier run were made as a run asks for, and in what they differ."""

from collections.abc import Sequence
from pathlib import Path

from halebrain.core.errors import CannotWriteError
from halebrain.core.provenance import Provenance

_COMPARED = {
    "input": "file name of the scan",
    "input_sha256": "scan",
    "input_space": "space of the scan",
    "brain_mask_sha256": "brain mask",
    "brain": "brain extraction",
    "model_sha256": "model",
    "seed": "seed",
    "draws": "number of draws",
    "levels": "noise levels",
    "precision": "precision",
}
_COMPARED_FILLED = {"fill_margin_mm": "margin of the filling", "fill_mask_sha256": "mask to fill"}
_UNSTATED = frozenset({"input_space"})
"""What an older result does not state, so that it cannot differ."""
THRESHOLD = "threshold"
"""What differs where another threshold is asked for."""


def differences(done: Provenance, requested: Provenance) -> list[str]:
    """Return what one scan was processed with otherwise than is asked for, in words; the threshold apart."""
    compared = _COMPARED if requested.fill_margin_mm is None else _COMPARED | _COMPARED_FILLED
    return [
        word
        for name, word in compared.items()
        if name not in _UNSTATED & done.unstated and getattr(done, name) != getattr(requested, name)
    ]


def refuse_different(what: str, words: Sequence[str], folder: Path) -> None:
    """Refuse to take, or to overwrite without a word, results in which something differs.

    Raises:
        CannotWriteError: There are `words` for what differs.
    """
    if words:
        raise CannotWriteError(
            f"{what} made with other settings exist",
            received=f"another {' and another '.join(dict.fromkeys(words))}",
            where=folder,
            remedy="choose another folder, or --overwrite",
        )
