"""The atlas: the MNI152NLin2009aSym T1 template and its brain mask, as nilearn's wheel carries them.

Source: Fonov et al. 2009, 2011 (ICBM 2009a Nonlinear Symmetric). Nothing is downloaded.
"""

from functools import lru_cache

import numpy as np

from halebrain.core.types import TEMPLATE_SPACE, MaskArray, Volume


@lru_cache(maxsize=4)
def load_template(spacing_mm: int = 2) -> tuple[Volume, MaskArray]:
    """Return the stripped T1 template and its brain mask at `spacing_mm`."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    image = load_mni152_template(resolution=spacing_mm)
    mask = load_mni152_brain_mask(resolution=spacing_mm)
    data = np.asarray(image.get_fdata(), dtype=np.float32)
    volume = Volume(data, np.asarray(image.affine, dtype=np.float64), name=TEMPLATE_SPACE)
    return volume, np.asarray(mask.get_fdata()) > 0
