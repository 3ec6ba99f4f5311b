"""The same numbers as MONAI where both define the same thing; skipped where MONAI is not installed (extra "bench")."""

import warnings

import numpy as np
import pytest
import torch
from scipy import ndimage

from halebrain.evaluation.metrics import METRICS

monai_metrics = pytest.importorskip("monai.metrics")
SPACING = (1.0, 1.5, 3.0)


@pytest.mark.parametrize("seed", range(4))
def test_dice_and_surfaces(make_case, seed):
    rng = np.random.default_rng(seed)
    one, two = (ndimage.gaussian_filter(rng.standard_normal((30, 28, 20)), 3) > 0.05 for _ in range(2))
    tensors = {"y_pred": torch.from_numpy(one)[None, None].float(), "y": torch.from_numpy(two)[None, None].float()}
    tensors["include_background"] = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "dice": monai_metrics.compute_dice(**tensors),
            "hd95": monai_metrics.compute_hausdorff_distance(**tensors, percentile=95, spacing=list(SPACING)),
            "surface_dice_2mm": monai_metrics.compute_surface_dice(
                **tensors, class_thresholds=[2.0], spacing=list(SPACING)
            ),
        }
    case = make_case(two, mask=one, spacing_mm=SPACING)
    for name, value in expected.items():
        assert METRICS.get(name)(case) == pytest.approx(float(value), rel=1e-5), name
