"""Iterative mask refinement: the fine structure, the masks, and when a mask stops shrinking."""

import math

import pytest
import torch

from halebrain.core.random import draw_seeds, make_generator
from halebrain.models.reconstruction import build_reconstructor
from halebrain.models.reconstruction.itermask import fine_structure, highest, random_squares

UNET = {"channels": [8, 16], "blocks_per_level": 1, "patch": 2, "norm_groups": 4, "attention_head_channels": 8}


def wave(cycles: float, height: float = 1.0) -> torch.Tensor:
    phase = 2 * math.pi * cycles * torch.arange(32) / 32
    return (height * torch.cos(phase)).expand(1, 1, 32, 32).clone()


def test_fine_structure_keeps_fast_waves_and_the_phase_alone_of_slow_ones():
    slow, fast = wave(2, 5.0), wave(9, 0.5)
    found = fine_structure(slow + fast, 4.0)
    # Amplitude 1 of the sum over all pixels, at ±2 cycles: a wave of height 2 / 32². What the slices have nothing of,
    # 0 of the spectrum, gets amplitude 1 too, all in one place.
    spectrum = torch.fft.fft2(found)[0, 0]
    assert float(spectrum[0, 2].abs()) == pytest.approx(1, abs=1e-2)
    assert float(spectrum[0, 9].abs()) == pytest.approx(0.5 * 32 * 32 / 2, rel=1e-4)
    torch.testing.assert_close(fine_structure(fast, 4.0), fast, atol=0.1, rtol=0)
    louder = fine_structure(7 * slow + fast, 4.0)
    torch.testing.assert_close(louder, found, atol=1e-3, rtol=0)


def test_the_highest_share_is_taken_inside_of_each_slice_alone():
    values = torch.arange(20.0).view(2, 1, 2, 5)
    inside = torch.ones(2, 1, 2, 5, dtype=torch.bool)
    inside[1, 0, 1] = False  # the highest of the second slice lie outside
    found = highest(values, inside, 0.6)
    assert found[0].flatten().tolist() == [False] * 4 + [True] * 6
    assert found[1].flatten().tolist() == [False, False, True, True, True] + [False] * 5


def test_masks_of_training_lie_inside_are_reproducible_and_of_many_sizes():
    inside = torch.zeros(40, 1, 48, 40, dtype=torch.bool)
    inside[:, :, 8:40, 6:34] = True
    inside[0] = False
    found = random_squares(inside, (2, 4, 8), (1.0, 16.0), generator=make_generator(3))
    assert not (found & ~inside).any()
    assert not found[0].any()
    share = found.flatten(1).sum(dim=1) / inside.flatten(1).sum(dim=1).clamp_min(1)
    assert float(share[1:].min()) < 0.25
    assert float(share.max()) > 0.5
    assert torch.equal(found, random_squares(inside, (2, 4, 8), (1.0, 16.0), generator=make_generator(3)))


def known(image, wrong):
    """A model whose painter gives the slice back, but for the pixels `wrong`, which it paints 0.5 higher."""
    built = build_reconstructor("itermask", {"unet": UNET, "radius": 3.0}).eval()
    answer = torch.where(wrong, image + 0.5, image)
    asked = []

    class Painter(torch.nn.Module):
        def forward(self, x, level, condition):
            asked.append(x)
            return 6 * answer[: len(x)] - 3

    built.painter = Painter()
    built.bound.fill_((6 * 0.25) ** 2)
    return built, asked


def test_only_what_is_painted_badly_stays_masked():
    image = torch.rand(1, 1, 16, 16, generator=make_generator(1)) * 0.4 + 0.05
    wrong = torch.zeros_like(image, dtype=torch.bool)
    wrong[..., 4:8, 4:8] = True
    built, asked = known(image, wrong)
    seeds = draw_seeds(1, make_generator(0))
    with torch.no_grad():
        painted, mask = built.refined(image, seeds)
        first = highest(
            (built._output(built.first, fine_structure(6 * image - 3, 3.0)) - (6 * image - 3)).square(), image > 0, 0.6
        )
    # What the first network does badly is masked first: 0.6 of the brain; the painter clears all but its own errors.
    assert int(first.sum()) == round(0.6 * 256)
    assert torch.equal(mask, first & wrong)
    torch.testing.assert_close(painted, torch.where(wrong, image + 0.5, image))
    assert len(asked) == (2 if bool((first & wrong).any()) else 1)
    # Under the mask the painter sees noise of its own in each round, elsewhere the slice.
    torch.testing.assert_close(asked[0][:, :1][~first], (6 * image - 3)[~first])
    if len(asked) == 2:
        assert not torch.equal(asked[0][:, :1][mask], asked[1][:, :1][mask])


def test_the_bound_follows_the_errors_of_training_batches_alone():
    built = build_reconstructor("itermask", {"unet": UNET, "radius": 3.0, "least_error": 0.25})
    built._follow(torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]))
    assert float(built.bound) == 3
    built._follow(torch.zeros(5))
    assert float(built.bound) == 1.5, "a plain mean at first"
    assert int(built.batches) == 2
    image = torch.rand(2, 1, 16, 16, generator=make_generator(1))
    built.eval().loss(image, generator=make_generator(0))
    assert (float(built.bound), int(built.batches)) == (1.5, 2)
    built.train().loss(image, generator=make_generator(0))
    assert int(built.batches) == 3


def test_slices_without_brain_stay_empty_of_masks():
    built, _ = known(torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16, dtype=torch.bool))
    with torch.no_grad():
        painted, mask = built.refined(torch.zeros(1, 1, 16, 16), draw_seeds(1, make_generator(0)))
    assert not mask.any()
    assert painted.shape == (1, 1, 16, 16)
