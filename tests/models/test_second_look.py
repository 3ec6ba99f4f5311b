"""A second look: what is doubted is filled, slice by slice, and nothing else changes."""

import torch

from halebrain.core.config import parse_config
from halebrain.models.reconstruction.second_look import SecondLook, SecondLookSettings

UNET = {"channels": [8, 8], "blocks_per_level": 1, "patch": 4, "norm_groups": 4, "attention_head_channels": 0}
SETTINGS = {
    "finder": {"name": "anoddpm", "settings": {"unet": UNET}},
    "doubter": {"channels": [8, 16], "norm_groups": 4, "patch": 2},
    "filler": {"unet": UNET},
}


def test_slices_without_doubt_need_no_filler_and_the_others_are_what_it_fills(monkeypatch):
    torch.manual_seed(0)
    model = SecondLook(parse_config(SecondLookSettings, SETTINGS, where="test")).eval()
    image = torch.rand(4, 1, 16, 16) * 0.8 + 0.1
    doubted = torch.zeros_like(image, dtype=torch.bool)
    doubted[1, :, 2:6, 2:6] = doubted[3, :, 9:12, 3:8] = True
    monkeypatch.setattr(model, "doubted", lambda *_: doubted)
    filled, fill = [], model.filler.fill
    monkeypatch.setattr(model.filler, "fill", lambda own, hole: filled.append(len(own)) or fill(own, hole))
    with torch.inference_mode():
        found = model.reconstruct(image, level=300, seeds=torch.arange(4))
        expected = fill(image, doubted)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert torch.equal(found[~doubted], image[~doubted])
    assert (found[doubted] != image[doubted]).any()
    assert filled == [2]
    doubted.zero_()
    assert model.reconstruct(image, level=300, seeds=torch.arange(4)) is image
    assert filled == [2]


def test_a_model_whose_segmenter_doubts_begins_from_the_finder_and_fills_at_the_end():
    torch.manual_seed(0)
    model = SecondLook(parse_config(SecondLookSettings, SETTINGS | {"doubter": None}, where="test")).eval()
    image = torch.rand(2, 1, 16, 16) * 0.8 + 0.1
    probability = torch.zeros_like(image)
    probability[0, 0, 4:6, 4:6] = 0.06
    with torch.inference_mode():
        first = model.reconstruct(image, level=300, seeds=torch.arange(2))
        torch.testing.assert_close(first, model.finder.reconstruct(image, level=300, seeds=torch.arange(2)))
        second = model.second_pass(image, probability)
    assert second is not None
    inside = torch.zeros_like(image, dtype=torch.bool)
    inside[0, 0, 2:8, 2:8] = True  # two pixels around
    assert torch.equal(second[~inside], image[~inside])
    assert (second[0] != image[0]).any()


def test_one_that_doubts_itself_has_no_second_pass():
    model = SecondLook(parse_config(SecondLookSettings, SETTINGS, where="test"))
    image = torch.rand(1, 1, 16, 16)
    assert model.second_pass(image, image) is None
