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
    monkeypatch.setattr(model, "doubted", lambda *_, **__: doubted)
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
