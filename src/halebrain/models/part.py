"""One network of several as a detector of its own: the way back from `join_models`."""

from collections.abc import Sequence
from dataclasses import replace

from halebrain.core.errors import DataError
from halebrain.core.modality import standard_modality
from halebrain.models.bundle import Bundle
from halebrain.models.join import SHARED, stage_of
from halebrain.models.segmentation import Segmenter


def part_for(bundle: Bundle, modalities: Sequence[str]) -> Bundle:
    """Return the network of a joined model that answers for contrasts, as a model of its own.

    Where several answer, averaged, it is the first of them: the one that was named first when they were joined. A model
    of one network, or of none, stays as it is.

    Args:
        bundle: A model.
        modalities: BIDS suffixes; () = any contrast, for which the network of the rest answers.

    Raises:
        DataError: Each contrast has another network.
    """
    segmenter = bundle.segmenter
    if segmenter is None or not segmenter.config.others:
        return bundle
    names = [standard_modality(name) for name in modalities]
    common = set.intersection(*(set(segmenter.config.asked(name)) for name in names or (None,)))
    if not common:
        raise DataError(
            "one network of a joined model answers for all contrasts named",
            received=f"{', '.join(modalities)}, which have networks of their own",
            where=bundle.path or "model",
            remedy="name one of them, as in data.modalities=[T2w]",
        )
    return _part(bundle, segmenter, min(common))


def _part(bundle: Bundle, segmenter: Segmenter, number: int) -> Bundle:
    """Return network `number` (0 = the first) alone, with what is told of its own training."""
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
        if stage == SHARED or whose == number + 1:
            told[stage] = summary
    model = bundle.config.model_copy(update={"segmenter": own})
    return replace(bundle, config=model, segmenter=alone, training=told, calibration={}, about=None, sha256="")
