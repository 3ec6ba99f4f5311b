"""Automatic choice: stripped scans are kept, whole heads go to the best extractor on this machine.

The order is fixed: stripped already, SynthStrip (weights or program), HD-BET (program), deepbet
(installed package), atlas, which needs nothing.
"""

import logging
from dataclasses import replace

from halebrain.core.errors import DataError, UnavailableError
from halebrain.core.types import Volume
from halebrain.preprocessing.brain import deepbet, hdbet, synthstrip
from halebrain.preprocessing.brain.atlas import extract_by_atlas
from halebrain.preprocessing.brain.base import BRAIN_EXTRACTORS, BrainMask
from halebrain.preprocessing.brain.given import extract_stripped

_LEARNED = (
    ("SynthStrip", synthstrip.is_available, synthstrip.extract_by_synthstrip),
    ("HD-BET", hdbet.is_available, hdbet.extract_by_hdbet),
    ("deepbet", deepbet.is_available, deepbet.extract_by_deepbet),
)
_log = logging.getLogger(__name__)


@BRAIN_EXTRACTORS.register("auto")
def extract_automatically(volume: Volume) -> BrainMask:
    """Return the brain of a scan, with or without its skull; if a learned extractor fails, the next one is used."""
    try:
        return extract_stripped(volume)
    except DataError:
        pass
    notes: list[str] = []
    for name, is_available, extract in _LEARNED:
        if not is_available():
            continue
        try:
            found = extract(volume)
        except (DataError, UnavailableError) as error:
            notes.append(f"{name} failed, another brain extractor is used: {error}")
            _log.warning("%s: %s", volume.name, notes[-1])
        else:
            break
    else:
        found = extract_by_atlas(volume)
    return replace(found, notes=(*notes, *found.notes))
