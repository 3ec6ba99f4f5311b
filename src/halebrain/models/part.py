"""Extract one network of a joined model as a detector; the inverse of `join_models`."""

from collections.abc import Sequence
from dataclasses import replace

from halebrain.core.errors import ConfigError
from halebrain.core.modality import standard_modality
from halebrain.models.bundle import Bundle
from halebrain.models.join import stage_of
from halebrain.models.segmentation import Segmenter

_OF_FIRST = ("stage2", "joint")
"""Stages that, without a number, trained the first network alone."""


def part_for(bundle: Bundle, modalities: Sequence[str]) -> Bundle:
    """Return the network of a joined model that is used for some contrasts, as a separate model.

    If several are averaged, it is the first of them in the order in which they were joined. A model
    of one network, or of none, is returned unchanged.

    Args:
        bundle: A model.
        modalities: BIDS suffixes; () = every contrast, for which the network of the rest is used.

    Raises:
        ConfigError: Each contrast has another network, or there is none of the rest.
    """
    segmenter = bundle.segmenter
    if segmenter is None or not segmenter.config.others:
        return bundle
    names, each = [standard_modality(name) for name in modalities], segmenter.config.contrasts_each
    common = set.intersection(*(set(segmenter.config.asked(name)) for name in names or (None,)))
    if not common or (not names and each and all(each)):
        one = next((name for own in each for name in own), "T2w")
        raise ConfigError(
            "one network of a joined model must cover all contrasts",
            received=f"{', '.join(modalities) or 'every contrast'}, which have their own networks",
            where=bundle.path or "model",
            remedy=f"name one contrast, as in data.modalities=[{names[0] if names else one}]",
        )
    return _part(bundle, segmenter, min(common))


def _part(bundle: Bundle, segmenter: Segmenter, number: int) -> Bundle:
    """Return network `number` (0 = the first) alone, with its own training summary."""
    config = segmenter.config
    own = (config.model_copy(update={"others": ()}), *config.others)[number].model_copy(update={"contrasts": ()})
    inside = f"others.{number - 1}." if number else ""
    weights = {name.removeprefix(inside): w for name, w in segmenter.state_dict().items() if name.startswith(inside)}
    alone = Segmenter(own)
    alone.load_state_dict({name: weight for name, weight in weights.items() if not name.startswith("others.")})
    alone.eval().requires_grad_(False)
    told = {}
    for key, summary in bundle.training.items():
        stage, whose = stage_of(key)
        # What came after the joining has no number; whom it saw, any of the networks may have seen.
        of_all = stage == key and stage not in _OF_FIRST
        if of_all or whose == number + 1:
            told[stage] = summary
    model = bundle.config.model_copy(update={"segmenter": own})
    return replace(bundle, config=model, segmenter=alone, training=told, calibration={}, about=None, sha256="")
