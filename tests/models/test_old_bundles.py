"""Bundles that earlier versions wrote give what they gave there.

`bundles/NAME.zip` is a tiny bundle, and `bundles/NAME.npz` every fourth pixel of what its networks gave, by contrast:
`joined_0_2` of version 0.2 (several networks, every setting that has another name now). `shipped.npz` is what the model
of the package gave, every eighth pixel.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from halebrain.inference.predictor import Predictor
from halebrain.models import store
from halebrain.models.bundle import load_bundle
from halebrain.thresholds.calibration import read_calibration

BUNDLES = Path(__file__).parent / "bundles"
NEAR = {"rtol": 0, "atol": 2e-5}
"""Convolutions of another processor round otherwise in their last bits."""


@pytest.mark.parametrize(("name", "channels"), [("joined_0_2", 4)])
def test_an_old_bundle_gives_what_it_gave(name: str, channels: int) -> None:
    bundle, expected = load_bundle(BUNDLES / f"{name}.zip"), np.load(BUNDLES / f"{name}.npz")
    image = torch.rand(3, channels, 32, 32, generator=torch.Generator().manual_seed(1))
    assert bundle.segmenter is not None
    with torch.inference_mode():
        healthy = bundle.reconstructor.reconstruct(image[:, :1], level=5, seeds=torch.arange(3))
        np.testing.assert_allclose(healthy[..., ::4, ::4], expected["reconstruction"], **NEAR)
        for contrast in set(expected) - {"reconstruction"}:
            logits = bundle.segmenter(image, healthy, None if contrast == "None" else contrast)
            np.testing.assert_allclose(logits[..., ::4, ::4], expected[contrast], **NEAR)


def test_an_old_bundle_keeps_its_settings_and_thresholds() -> None:
    bundle = load_bundle(BUNDLES / "joined_0_2.zip")
    assert bundle.reconstructor.needs_corruption
    assert Predictor(bundle).postprocessing.across_mm(None) == (3.0, 16.0)
    calibration = read_calibration(bundle)
    assert calibration is not None
    assert calibration.modalities["T1w"]["ml:1"].population_fraction == 0.9


@pytest.mark.slow
@pytest.mark.skipif(not list(store.bundled_folder().glob("general.zip")), reason="this tree has no model")
def test_the_model_of_the_package_gives_what_it_gave() -> None:
    predictor = Predictor(load_bundle(store.bundled_folder() / "general.zip"))
    image = torch.rand(6, 1, 96, 96, generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(image, dtype=torch.bool)
    mask[..., :10] = False
    expected = np.load(BUNDLES / "shipped.npz")
    for contrast in set(expected) - {"reconstruction"}:
        asked = None if contrast == "None" else contrast
        healthy, probability = predictor._run_level(image * mask, mask, 300, torch.arange(6), asked)
        np.testing.assert_allclose(healthy[..., ::8, ::8], expected["reconstruction"], **NEAR)
        np.testing.assert_allclose(probability[..., ::8, ::8], expected[contrast], **NEAR)
