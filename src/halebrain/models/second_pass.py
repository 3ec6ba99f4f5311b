"""Give a trained detector a second look: an inpainter fills what its segmenter doubts."""

from dataclasses import replace

from halebrain.core.errors import DataError
from halebrain.models.bundle import FILLER, Bundle
from halebrain.models.reconstruction import Reconstructor, ReconstructorSpec
from halebrain.models.reconstruction.inpainting import Inpainter
from halebrain.models.reconstruction.second_look import SecondLook, SecondLookSettings


def with_second_look(detector: Bundle, inpainter: Bundle, *, doubt: float, grow: int) -> Bundle:
    """Return a detector whose pseudo-healthy scan is the scan itself, but for what its segmenter doubts.

    Score, mask and thresholds stay as they were, since the segmenter still sees the first reconstruction.

    Args:
        detector: With a segmenter, of one network or several.
        inpainter: A model of the reconstructor `inpainting`, or `second_look`, whose inpainter is taken; it must have
            learned from scans of the same preprocessing.
        doubt: Probability from which a voxel is doubted.
        grow: Pixels by which the doubted region is grown.

    Raises:
        DataError: They cannot be combined.
    """
    filler = _inpainter_of(inpainter)
    finder = detector.reconstructor
    learned = inpainter.training.get(FILLER) or inpainter.training.get("stage1")
    wrong, where = "", detector.where
    if detector.segmenter is None:
        wrong = "a reconstructor without a segmenter"
    elif isinstance(finder, SecondLook):
        wrong = "a model with a second look"
    elif not finder.gives_image:
        wrong = f"{detector.config.reconstructor.name}, which gives no reconstruction"
    elif filler is None:
        wrong, where = f"an inpainter that is {inpainter.config.reconstructor.name}", inpainter.where
    elif learned is None:
        wrong, where = "an inpainter that was not trained alone", inpainter.where
    if wrong or filler is None or learned is None:
        raise DataError(
            "a second look takes a detector with a reconstruction, and an inpainter",
            received=wrong,
            where=where,
            remedy="train an inpainter: halebrain train reconstructor -c inpainting",
        )
    settings = SecondLookSettings(
        finder=detector.config.reconstructor, doubter=None, filler=filler.settings, doubt=doubt, grow=grow
    )
    both = SecondLook(settings)
    both.finder.load_state_dict(finder.state_dict())
    both.filler.load_state_dict(filler.state_dict())
    both.eval().requires_grad_(False)
    spec = ReconstructorSpec(name="second_look", settings=settings.model_dump(mode="json"))
    # In a model with a second look from here, stage 1 is the training of its finder.
    summary = dict(learned)
    start = summary.pop("start", {})
    if start.get("sha256") == detector.sha256:  # what this detector saw is among its own stages
        start = {stage: one for stage, one in start.items() if stage not in ("sha256", *detector.training)}
    if start:
        summary["start"] = start
    training = {**detector.training, FILLER: summary}
    config = detector.config.model_copy(update={"reconstructor": spec})
    return replace(detector, config=config, reconstructor=both, training=training, sha256="")


def _inpainter_of(bundle: Bundle) -> Inpainter | None:
    reconstructor: Reconstructor = bundle.reconstructor
    if isinstance(reconstructor, SecondLook):
        return reconstructor.filler
    return reconstructor if isinstance(reconstructor, Inpainter) else None
