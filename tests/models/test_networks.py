from pathlib import Path

import pytest
import torch

import halebrain
from halebrain.core.config import load_config, parse_config
from halebrain.core.errors import ConfigError
from halebrain.core.random import draw_seeds, make_generator
from halebrain.models.conditioning import EncoderConfig
from halebrain.models.reconstruction import build_reconstructor
from halebrain.models.segmentation import Segmenter, SegmenterConfig
from halebrain.models.unet import UNetConfig
from halebrain.training.reconstructor import ReconstructorTraining
from halebrain.training.segmenter_config import SegmenterTraining

CONFIGS = Path(halebrain.__file__).parent / "configs"


def millions(network):
    return sum(p.numel() for p in network.parameters()) / 1e6


@pytest.fixture(scope="module")
def paper():
    config = load_config(ReconstructorTraining, CONFIGS / "reconstructor_paper.yaml")
    return build_reconstructor(config.reconstructor.name, config.reconstructor.settings)


def paper_segmenter(name):
    return Segmenter(load_config(SegmenterTraining, CONFIGS / f"{name}.yaml").segmenter)


def test_the_paper_setting_has_the_published_sizes(paper):
    assert millions(paper.encoder) == pytest.approx(24.6, rel=0.02)
    assert millions(paper.unet) == pytest.approx(44.0, rel=0.02)
    assert millions(paper_segmenter("segmenter_paper")) == pytest.approx(16.7, rel=0.02)
    three = paper_segmenter("segmenter_paper3")
    assert [block[0].out_channels for block in three.encoders[0]] == [64, 128, 256]


@pytest.mark.sweep
def test_the_paper_setting_takes_a_step_of_both_stages(paper):
    image = torch.rand(1, 1, 96, 96)
    optimizer = torch.optim.Adam(paper.parameters(), lr=1e-4)
    before = paper.unet.stem.weight.detach().clone()
    # The head starts at zero, so the layers below it get their first gradient in the second step.
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = paper.train().loss(image.repeat(2, 1, 1, 1), generator=make_generator(0))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[1] < losses[0]
    assert not torch.equal(before, paper.unet.stem.weight)
    segmenter = paper_segmenter("segmenter_paper")
    with torch.no_grad():
        reconstruction = paper.eval().reconstruct(image, level=500, seeds=draw_seeds(1, make_generator(0)))
    optimizer = torch.optim.Adam(segmenter.parameters(), lr=5e-5)
    target = (image > 0.5).float()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(segmenter(image, reconstruction), target)
    loss.backward()
    optimizer.step()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in segmenter.parameters())


@pytest.mark.parametrize(
    ("kind", "settings", "word"),
    [
        (UNetConfig, {"channels": [16, 20], "norm_groups": 8, "attention_head_channels": 0}, "20"),
        (UNetConfig, {"channels": [16, 48], "norm_groups": 8, "attention_head_channels": 32}, "48"),
        (SegmenterConfig, {"channels": [12], "norm_groups": 8}, "12"),
        (EncoderConfig, {"width": 12, "norm": "group"}, "12"),
    ],
)
def test_sizes_that_cannot_be_built_are_refused_as_settings(kind, settings, word):
    with pytest.raises(ConfigError, match=word):
        parse_config(kind, settings)
