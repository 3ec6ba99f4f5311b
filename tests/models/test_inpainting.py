import pytest
import torch

from halebrain.core.random import make_generator
from halebrain.models.reconstruction import build_reconstructor
from halebrain.models.reconstruction.inpainting import Inpainter, InpainterSettings

UNET = {"channels": [8, 16], "blocks_per_level": 1, "patch": 2, "norm_groups": 4, "attention_head_channels": 8}


@pytest.fixture
def inpainter():
    torch.manual_seed(0)
    built = build_reconstructor("inpainting", {"unet": UNET, "test_levels": [4, 6]})
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return built.eval()


@pytest.fixture
def image():
    return torch.rand(2, 1, 24, 32, generator=make_generator(1))


def hole_in(image):
    hole = torch.zeros_like(image, dtype=torch.bool)
    hole[:, :, 5:12, 7:20] = True
    return hole


def test_outside_the_hole_the_slice_stays_to_the_bit(inpainter, image):
    hole = hole_in(image)
    filled = inpainter.fill(image, hole)
    assert torch.equal(filled[~hole], image[~hole])
    assert (filled[hole] != image[hole]).float().mean() > 0.9


def test_what_fills_a_hole_does_not_depend_on_what_was_there(inpainter, image):
    hole = hole_in(image)
    other = torch.where(hole, 1 - image, image)
    assert torch.equal(inpainter.fill(image, hole)[hole], inpainter.fill(other, hole)[hole])


def test_a_reconstruction_copies_no_pixel(inpainter, image):
    """Each square is filled from the other squares: changing one changes no pixel of its own reconstruction."""
    before = inpainter.reconstruct(image, level=6, seeds=torch.zeros(2, dtype=torch.long))
    image = image.clone()
    image[:, :, 6:12, 6:12] = 0.5
    after = inpainter.reconstruct(image, level=6, seeds=torch.zeros(2, dtype=torch.long))
    assert torch.equal(before[:, :, 6:12, 6:12], after[:, :, 6:12, 6:12])
    assert not torch.equal(before, after)


@pytest.mark.parametrize("low", [0.02, 0.2])
def test_holes_have_the_area_that_was_asked_for(low):
    settings = InpainterSettings(hole_fraction=(low, low), chessboards=0.0, on_anomalies=0.0)
    image = torch.ones(8, 1, 64, 64)
    holes = Inpainter(settings)._holes(image, torch.zeros_like(image, dtype=torch.bool), make_generator(0))
    assert holes.float().mean(dim=(1, 2, 3)) == pytest.approx(low, abs=0.002)


def test_holes_cover_the_anomaly(image):
    settings = InpainterSettings(chessboards=0.0, on_anomalies=1.0)
    anomaly = hole_in(image)
    holes = Inpainter(settings)._holes(image, anomaly, make_generator(0))
    assert (holes | ~anomaly).all()


def test_the_loss_counts_the_brain_in_the_holes_alone(image):
    """A fresh network fills with 0.5, the middle: on a slice of 0.5 the error is 0, on one of 1 it is 1."""
    fresh = Inpainter(InpainterSettings(unet=UNET))
    healthy = torch.full_like(image, 0.5)
    assert float(fresh.loss(healthy, generator=make_generator(0), corrupt=lambda x, _: x * 0.9).detach()) == 0
    bright = torch.ones_like(image)
    loss = fresh.loss(bright, generator=make_generator(0), corrupt=lambda x, _: x)
    assert float(loss.detach()) == pytest.approx(1)


@pytest.mark.parametrize("settings", [{"test_levels": []}, {"test_levels": [65]}, {"hole_fraction": [0.2, 0.1]}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=r"must lie in|must be a range"):
        InpainterSettings(**settings)
