"""Join detectors on one reconstructor (averaged, or each for the contrasts of its training data), and part them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from halebrain.core.errors import ConfigError, DataError
from halebrain.core.modality import standard_modality
from halebrain.models.bundle import Bundle
from halebrain.models.ensemble import Ensemble, EnsembleMember
from halebrain.models.healthy_map import HealthyResiduals
from halebrain.models.segmentation import Segmenter, SegmenterConfig

SHARED = "stage1"
"""Parts that all models share, stored once."""
_WHOSE = ", segmenter "
"""Between a stage and the number of the segmenter that it trained."""
_OF_FIRST = ("stage2", "joint")
"""Stages that, without a number, trained the first network alone."""


def join_models(bundles: Sequence[Bundle], *, by_contrast: bool = False, rest: int | None = None) -> Bundle:
    """Return one detector from several, an ensemble (Lakshminarayanan et al. 2017).

    The postprocessing is the first one's, with how it was chosen, and the healthy residual map that of those that have
    one. Thresholds, and what is said of a model (licence, figures), are dropped: the joined model must be calibrated
    and described again.

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
        raise DataError("joining takes several models", received="one", where=first.where, remedy="name another")
    for bundle in bundles:
        _check(first, bundle)
    segmenters = [bundle.segmenter for bundle in bundles if isinstance(bundle.segmenter, Segmenter)]
    own = [_learned(b) if by_contrast and place != rest else () for place, b in enumerate(bundles)]
    members = [EnsembleMember(**s.config.model_dump(), contrasts=c) for s, c in zip(segmenters, own, strict=True)]
    joined = Ensemble(members)
    for member, segmenter in zip(joined.members, segmenters, strict=True):
        member.load_state_dict(segmenter.state_dict())
    joined.eval().requires_grad_(False)
    training: dict[str, Any] = dict(first.training)
    for number, bundle in enumerate(others, start=2):
        stages = {stage: summary for stage, summary in bundle.training.items() if stage != SHARED}
        training |= {f"{stage}{_WHOSE}{number}": summary for stage, summary in stages.items()}
    model = first.config.model_copy(update={"segmenter": None, "ensemble_members": tuple(members)})
    return replace(
        first,
        config=model,
        segmenter=joined,
        training=training,
        calibration={},
        about=None,
        sha256="",
        healthy_map=_shared_map(bundles),
    )


def _shared_map(bundles: Sequence[Bundle]) -> HealthyResiduals | None:
    """Return the healthy map of the models that have one, which must be the same for all of them."""
    having = [bundle for bundle in bundles if bundle.healthy_map is not None]
    files = [bundle.healthy_map.to_bytes() for bundle in having if bundle.healthy_map is not None]
    for bundle, raw in zip(having, files, strict=True):
        if raw != files[0]:
            raise DataError(
                "joined models must have the same healthy map, or none",
                received="another one",
                where=bundle.where,
                remedy="join models from before halebrain calibrate --healthy-map, then calibrate the joined one",
            )
    return having[0].healthy_map if having else None


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
            where=bundle.where,
            remedy="train it with this version, or join without --by-contrast",
        )
    return tuple(sorted({standard_modality(name) for name in said}))


def _check(first: Bundle, bundle: Bundle) -> None:
    """Raise if two models cannot be joined."""
    wrong = ""
    if bundle.segmenter is None:
        wrong = "a reconstructor without a segmenter"
    elif isinstance(bundle.segmenter, Ensemble):
        wrong = "a joined model"
    elif bundle.config.reconstructor != first.config.reconstructor or not _same_weights(first, bundle):
        wrong = "another reconstructor"
    elif bundle.config.preprocessing != first.config.preprocessing:
        wrong = "another preprocessing"
    if wrong:
        raise DataError(
            "joined models must be detectors on one reconstructor, each with one segmenter",
            received=wrong,
            where=bundle.where,
            remedy="train the segmenters on the same stage 1, and join them all at once",
        )


def _same_weights(first: Bundle, second: Bundle) -> bool:
    one, other = first.reconstructor.state_dict(), second.reconstructor.state_dict()
    return one.keys() == other.keys() and all(torch.equal(weight, other[name]) for name, weight in one.items())


def part_for(bundle: Bundle, modalities: Sequence[str]) -> Bundle:
    """Return the network of a joined model that is used for some contrasts, as a separate model.

    If several are averaged, it is the first of them in the order in which they were joined. A model of one network, or
    of none, is returned unchanged. `modalities` are BIDS suffixes; () = every contrast: the network of the rest. Where
    each contrast has another network, or none is of the rest, it is an error.
    """
    segmenter = bundle.segmenter
    if not isinstance(segmenter, Ensemble):
        return bundle
    names, each = [standard_modality(name) for name in modalities], segmenter.contrasts_each
    common = set.intersection(*(set(segmenter.asked(name)) for name in names or (None,)))
    if not common or (not names and each and all(each)):
        one = next((name for own in each for name in own), "T2w")
        raise ConfigError(
            "one network of a joined model must cover all contrasts",
            received=f"{', '.join(modalities) or 'every contrast'}, which have their own networks",
            where=bundle.where,
            remedy=f"name one contrast, as in data.modalities=[{names[0] if names else one}]",
        )
    return _part(bundle, segmenter, min(common))


def _part(bundle: Bundle, ensemble: Ensemble, number: int) -> Bundle:
    """Return network `number` (0 = the first) alone, with its own training summary."""
    own = SegmenterConfig(**ensemble.configs[number].model_dump(exclude={"contrasts"}))
    alone = Segmenter(own)
    alone.load_state_dict(ensemble.members[number].state_dict())
    alone.eval().requires_grad_(False)
    training = {}
    for key, summary in bundle.training.items():
        stage, whose = stage_of(key)
        # What came after the joining has no number; whom it saw, any of the networks may have seen.
        of_all = stage == key and stage not in _OF_FIRST
        if of_all or whose == number + 1:
            training[stage if stage not in training else f"{stage} before joining"] = summary
    model = bundle.config.model_copy(update={"segmenter": own, "ensemble_members": ()})
    return replace(bundle, config=model, segmenter=alone, training=training, calibration={}, about=None, sha256="")
