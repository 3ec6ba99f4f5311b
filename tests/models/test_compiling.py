"""Networks are compiled where a compiler is, and run as they are where there is none."""

import logging

import pytest
import torch

from halebrain.models import compiling
from halebrain.models.compiling import compile_networks
from halebrain.models.segmentation import Segmenter, SegmenterConfig
from halebrain.models.unet import DiffusionUNet, UNetConfig

CPU = torch.device("cpu")


class Networks(torch.nn.Module):
    """A U-net and a segmenter side by side."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        config = UNetConfig(channels=(8, 8), blocks_per_level=1, patch=4, norm_groups=4, attention_head_channels=0)
        self.unet, self.segmenter = DiffusionUNet(config), Segmenter(SegmenterConfig(channels=(8, 16), patch=2))

    def results(self) -> list[torch.Tensor]:
        """Return what both give for one slice."""
        image = torch.linspace(0, 1, 32 * 32).view(1, 1, 32, 32)
        with torch.inference_mode():
            return [self.unet(image, torch.tensor([300]), None), self.segmenter(image, image * 0.5)]


@pytest.fixture(autouse=True)
def _probe_again():
    compiling._reason_against.cache_clear()
    yield
    compiling._reason_against.cache_clear()


def test_without_a_compiler_networks_run_as_they_are_and_the_log_says_why(monkeypatch, caplog):
    def refuse(*_, **__):
        raise RuntimeError("No working C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", refuse)
    networks = Networks().eval()
    before = networks.results()
    with caplog.at_level(logging.INFO):
        assert not compile_networks(networks, CPU)
    assert "run without torch.compile: RuntimeError: No working C++ compiler found" in caplog.text
    assert "and more" not in caplog.text
    assert all(torch.equal(a, b) for a, b in zip(before, networks.results(), strict=True))


def test_each_network_is_compiled_with_its_weights_in_place(monkeypatch):
    ran = []

    def stand_in(function, **_):
        def compiled(*arguments, **named):
            ran.append(function.__name__)
            return function(*arguments, **named)

        return compiled

    networks = Networks().eval()
    before, names = networks.results(), list(networks.state_dict())
    monkeypatch.setattr(torch, "compile", stand_in)
    assert compile_networks(networks, CPU)
    assert all(torch.equal(a, b) for a, b in zip(before, networks.results(), strict=True))
    assert ran == ["_probe", "_call_impl", "all_logits"]
    assert list(networks.state_dict()) == names
