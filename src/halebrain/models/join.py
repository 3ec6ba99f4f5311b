"""Join detectors on one reconstructor: segmenters averaged, or each for the contrasts of its training data."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from halebrain.core.errors import DataError
from halebrain.core.modality import standard_modality
from halebrain.models.bundle import Bundle
from halebrain.models.segmentation import Segmenter

SHARED = "stage1"
"""Parts that all models share, stored once."""
_WHOSE = ", segmenter "
"""Between a stage and the number of the segmenter that it trained."""


def join_models(bundles: Sequence[Bundle], *, by_contrast: bool = False, rest: int | None = None) -> Bundle:
    """Return one detector from several, an ensemble (Lakshminarayanan et al. 2017).

    The postprocessing is the first one's, with how it was chosen. Thresholds, and what is said of a model (licence,
    figures), are dropped: the joined model must be calibrated and described again.

    Args:
        bundles: Detectors on the same reconstructor, two at least.
        by_contrast: Each is used for the contrasts of its stage 2 training, and a scan of another contrast gets
            the mean of all (Differs from paper: one network, one contrast at a time).
        rest: Index of the model used, with `by_contrast`, for contrasts that no other was trained on and for these
            alone; `None` = there is none.

    Raises:
        DataError: They do not belong together.
    """
    first, *others = bundles
    if not others:
        raise DataError("joining takes several models", received="one", where=_where(first), remedy="name another")
    for bundle in bundles:
        _check(first, bundle)
    segmenters = [bundle.segmenter for bundle in bundles if bundle.segmenter is not None]
    own = [_learned(b) if by_contrast and place != rest else () for place, b in enumerate(bundles)]
    parts = [s.config.model_copy(update={"contrasts": names}) for s, names in zip(segmenters, own, strict=True)]
    config = parts[0].model_copy(update={"others": tuple(parts[1:])})
    config = type(config).model_validate(config.model_dump())
    joined = Segmenter(config)
    joined.load_state_dict(_joined_weights(segmenters))
    joined.eval().requires_grad_(False)
    training: dict[str, Any] = dict(first.training)
    for number, bundle in enumerate(others, start=2):
        stages = {stage: told for stage, told in bundle.training.items() if stage != SHARED}
        training |= {f"{stage}{_WHOSE}{number}": told for stage, told in stages.items()}
    model = first.config.model_copy(update={"segmenter": config})
    return replace(first, config=model, segmenter=joined, training=training, calibration={}, about=None, sha256="")


def stage_of(key: str) -> tuple[str, int]:
    """Return a stage of a joined model's training, and the number of the segmenter that it trained.

    Example:
        >>> stage_of("stage2, segmenter 3"), stage_of("stage2")
        (('stage2', 3), ('stage2', 1))
    """
    stage, _, number = key.partition(_WHOSE)
    return stage, int(number or 1)


def _learned(bundle: Bundle) -> tuple[str, ...]:
    """Return the contrasts that the segmenter of a model learned from, as BIDS suffixes."""
    said = bundle.training.get("stage2", {}).get("modalities", ())
    if not said:
        raise DataError(
            "a segmenter that is used by contrast must state its training contrasts",
            received="no contrast in its training summary",
            where=_where(bundle),
            remedy="train it with this version, or join without --by-contrast",
        )
    return tuple(sorted({standard_modality(name) for name in said}))


def _joined_weights(segmenters: Sequence[Segmenter]) -> dict[str, torch.Tensor]:
    first, *rest = segmenters
    found = dict(first.state_dict())
    for number, segmenter in enumerate(rest):
        found |= {f"others.{number}.{name}": weight for name, weight in segmenter.state_dict().items()}
    return found


def _check(first: Bundle, bundle: Bundle) -> None:
    """Raise if two models cannot be joined."""
    wrong = ""
    if bundle.segmenter is None:
        wrong = "a reconstructor without a segmenter"
    elif bundle.segmenter.config.others:
        wrong = "a joined model"
    elif bundle.config.reconstructor != first.config.reconstructor or not _same_weights(first, bundle):
        wrong = "another reconstructor"
    elif bundle.config.preprocessing != first.config.preprocessing:
        wrong = "another preprocessing"
    if wrong:
        raise DataError(
            "joined models must be detectors on one reconstructor, each with one segmenter",
            received=wrong,
            where=_where(bundle),
            remedy="train the segmenters on the same stage 1, and join them all at once",
        )


def _same_weights(first: Bundle, second: Bundle) -> bool:
    one, other = first.reconstructor.state_dict(), second.reconstructor.state_dict()
    return one.keys() == other.keys() and all(torch.equal(weight, other[name]) for name, weight in one.items())


def _where(bundle: Bundle) -> object:
    return bundle.path or "model"
