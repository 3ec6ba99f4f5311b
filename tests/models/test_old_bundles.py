"""Bundles that earlier versions wrote give what they gave there.

`bundles/NAME.zip` is a tiny bundle, and `bundles/NAME.npz` every fourth pixel of what its networks gave, by contrast:
`single_0_1` of version 0.1 (one network), `joined_0_2` of version 0.2 (several networks, every setting that has another
name now). `shipped.npz` is what the model of the package gave, every eighth pixel.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from halebrain.inference.predictor import Predictor
from halebrain.models import store
from halebrain.models.bundle import load_bundle, model_sha256, save_bundle
from halebrain.models.card import model_card
from halebrain.models.joining import join_models, part_for
from halebrain.thresholds.calibration import read_calibration

BUNDLES = Path(__file__).parent / "bundles"
NEAR = {"rtol": 0, "atol": 2e-5}
"""Convolutions of another processor round otherwise in their last bits."""


@pytest.mark.parametrize(("name", "channels"), [("single_0_1", 1), ("joined_0_2", 4)])
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


def test_what_is_saved_again_is_the_same_model(tmp_path: Path) -> None:
    bundle = load_bundle(BUNDLES / "joined_0_2.zip")
    save_bundle(bundle, tmp_path / "again", card="# A card\n")
    again = load_bundle(tmp_path / "again")
    assert again.config == bundle.config
    assert model_sha256(again) == again.sha256 == model_sha256(bundle)
    image = torch.rand(2, 4, 32, 32)
    assert bundle.segmenter is not None
    assert again.segmenter is not None
    assert torch.equal(bundle.segmenter(image, image[:, :1], "T2w"), again.segmenter(image, image[:, :1], "T2w"))


def test_parts_of_an_old_bundle_are_joined_as_they_were() -> None:
    bundle = load_bundle(BUNDLES / "joined_0_2.zip")
    parts = [part_for(bundle, names) for names in (("T1w",), ("FLAIR",), ("PDw",))]
    assert [part.training["stage2"]["train_subjects"] for part in parts] == [["b"], ["b2"], ["b4"]]
    joined = join_models(parts, by_contrast=True)
    image = torch.rand(2, 4, 32, 32)
    assert joined.segmenter is not None
    assert bundle.segmenter is not None
    for name in ("T1w", "FLAIR", "PDw"):
        given = bundle.segmenter(image, image[:, :1], name)
        assert torch.equal(joined.segmenter(image, image[:, :1], name), given)


def test_the_commands_understand_an_old_bundle_without_a_warning(
    command: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for words in (("info",), ("export", "-o", tmp_path / "x.zip")):
        code, said = command("models", words[0], BUNDLES / "joined_0_2.zip", *words[1:])
        assert code == 0
        assert "warning" not in said.err
    assert not caplog.records
    card = model_card(replace(load_bundle(tmp_path / "x.zip"), training={}))
    assert "in 4 networks, for T1w, T2w and FLAIR, T2w, all others" in card


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
        healthy, probability = predictor.run_level(image * mask, mask, 300, torch.arange(6), asked)
        np.testing.assert_allclose(healthy[..., ::8, ::8], expected["reconstruction"], **NEAR)
        np.testing.assert_allclose(probability[..., ::8, ::8], expected[contrast], **NEAR)
