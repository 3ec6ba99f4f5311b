"""What every brain extractor promises, whichever it is."""

import numpy as np
import pytest

from halebrain.core.errors import DataError, UnavailableError
from halebrain.core.types import Volume
from halebrain.preprocessing.brain import BRAIN_EXTRACTORS

_SEARCHES = ("atlas", "auto")
"""They try every start before they refuse an image without a head."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in _SEARCHES else ())
        for name in BRAIN_EXTRACTORS
        if name != "none"
    ],
)
@pytest.mark.parametrize("intensity", [0, 1])
def test_a_scan_without_a_head_is_refused_in_one_line(name, intensity):
    volume = Volume(np.full((24, 24, 24), intensity, np.float32), np.diag([8.0, 8.0, 8.0, 1.0]), name="flat.nii")
    with pytest.raises((DataError, UnavailableError)) as caught:
        BRAIN_EXTRACTORS.get(name)(volume)
    assert "\n" not in str(caught.value)
