"""Register a brain to the template, with quality figures of the result."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from halebrain.core.types import Affine, MaskArray, Volume
from halebrain.preprocessing.registration import ants, greedy
from halebrain.preprocessing.registration.base import (
    REGISTRATION_ENGINES,
    Brain,
    Registration,
    mask_dice,
    prepare_brain,
)
from halebrain.preprocessing.registration.simpleitk import approach
from halebrain.preprocessing.registration.starts import SharedInformation, find_starts, fit_inside
from halebrain.preprocessing.template import Template, find_template

EngineName = Literal["greedy", "simpleitk", "ants"]

_EVERY = 4
_STARTS = 3
_SURE_DICE, _SURE_MARGIN = 0.90, 1.8
"""From this value on, no other start is tried."""
_FAILED_DICE, _FAILED_MARGIN = 0.80, 1.25
"""Below either value the registration is unreliable (`benchmarks/registration.py`). Right placements of stripped scans
have a margin of 2 and more, those of thick slices in a mask that is not yet right 1.3 to 1.6, wrong ones 0.4 to 1.5."""
_SCALES = (0.35, 2.0)


def default_engine() -> EngineName:
    """Return Greedy where it is installed, SimpleITK otherwise (`registration: affine`)."""
    return "greedy" if greedy.is_available() else "simpleitk"


def check_engine(name: EngineName) -> None:
    """Check that an engine is installed, before the first scan."""
    if name == "greedy":
        greedy.check_installed()
    elif name == "ants":
        ants.load_ants()


def register_to_template(
    volume: Volume,
    brain_mask: MaskArray,
    *,
    near: Affine | None = None,
    template: Template | None = None,
    engine: EngineName | None = None,
    brain: Brain | None = None,
) -> Registration:
    """Register the brain in `volume` to the template, from other starts where the first ends badly.

    The egg-shaped outline can trap a nodded head: a placement that fits no better than a rotated one is finally moved
    to where the interior fits best.

    Args:
        volume: Native scan, any contrast.
        brain_mask: Bool, on its grid.
        near: Template-to-native matrix known to be close: only refined, unless that ends badly.
        template: The atlas; `None` = the MNI template.
        engine: Name of a registration engine; `None` = `default_engine()`.
        brain: What `prepare_brain` makes of both, where that is known.
    """
    atlas = find_template() if template is None else template
    name = engine or default_engine()
    brain = brain or prepare_brain(volume, brain_mask)
    shared = SharedInformation.of(brain, atlas, every=_EVERY)
    found: list[Registration] = []
    if near is not None:
        found += _register_from([near], brain, atlas, shared, name)
    if not found or not _is_sure(found[-1]):
        found += _register_from(find_starts(brain, atlas, count=_STARTS), brain, atlas, shared, name)
    best = max(found, key=_rank)
    if best.failed:
        found.append(assess(fit_inside(shared, best.template_to_native), brain, atlas, shared, name))
    return max(found, key=_rank)


def register_near(brain: Brain, near: Affine, *, coarse: bool) -> Registration | None:
    """Return how a brain whose mask is not final lies near a placement in the MNI template; `None` where it is unsure.

    Args:
        brain: Brain, as `prepare_brain` makes it.
        near: Template-to-native matrix known to be close.
        coarse: Whether `near` may be off by a centimetre.
    """
    atlas = find_template()
    shared = SharedInformation.of(brain, atlas, every=_EVERY)
    found = assess(approach(brain, near, atlas, coarse=coarse), brain, atlas, shared, "simpleitk")
    return found if _is_sure(found) else None


def assess_placement(
    brain: Brain, template_to_native: Affine, *, template: Template | None, engine: str
) -> Registration:
    """Return the quality of a placement of the template in a scan that was found elsewhere; `engine` names how."""
    atlas = find_template() if template is None else template
    return assess(template_to_native, brain, atlas, SharedInformation.of(brain, atlas, every=_EVERY), engine)


def _rank(registration: Registration) -> tuple[bool, float]:
    # The outline weighs in the information: a turned head may share more of it than a right one whose mask is rough.
    return not registration.failed, registration.nmi


def _register_from(
    starts: Sequence[Affine], brain: Brain, atlas: Template, shared: SharedInformation, name: EngineName
) -> list[Registration]:
    """Return the result of each start, up to the first reliable one."""
    found: list[Registration] = []
    for start in starts:
        found.append(assess(REGISTRATION_ENGINES.get(name)(brain, start, atlas), brain, atlas, shared, name))
        if _is_sure(found[-1]):
            break
    return found


def _is_sure(registration: Registration) -> bool:
    return registration.mask_dice >= _SURE_DICE and registration.margin >= _SURE_MARGIN


def assess(matrix: Affine, brain: Brain, atlas: Template, shared: SharedInformation, name: str) -> Registration:
    """Return how well a template-to-native matrix, found by the engine `name`, brings a brain to the atlas."""
    dice, margin = mask_dice(brain, matrix, atlas), shared.margin(matrix)
    scale = float(np.linalg.det(matrix[:3, :3]))
    failed = dice < _FAILED_DICE or margin < _FAILED_MARGIN or not _SCALES[0] < scale < _SCALES[1]
    return Registration(matrix, dice, 1 + shared.at(matrix), margin, scale, name, failed)
