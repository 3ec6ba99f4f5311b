import pytest
import torch

from halebrain.core.random import make_generator
from halebrain.data.augment import AugmentationConfig, add_rician_noise, augment, flip, lower_resolution, shift

NOTHING = {"gamma": 0, "bias_field": 0, "blur": 0, "ghosting": 0, "flip": 0}
PIXELS = [0.7153712, 0.7474956, 0.2874790, 0.1295330, 0.5058184, 0.5272399]
NEXT = [0.09642958641052246, 0.5624765157699585, 0.3759365677833557]


@pytest.fixture
def slices():
    image = torch.rand(6, 1, 40, 32, generator=make_generator(0))
    brain = torch.zeros_like(image, dtype=torch.bool)
    brain[..., 6:34, 5:27] = True
    return image, brain


def test_probability_zero_is_the_identity_inside_the_brain(slices):
    image, brain = slices
    out = augment(image, brain, AugmentationConfig(**NOTHING), generator=make_generator(1))
    assert torch.equal(out, image * brain)


@pytest.mark.parametrize("kind", ["gamma", "bias_field", "blur", "ghosting", "noise", "resolution", "window"])
def test_each_augmentation_changes_every_slice_and_stays_in_range(slices, kind):
    image, brain = slices
    before = image.clone()
    out = augment(image, brain, AugmentationConfig(**{**NOTHING, kind: 1}), generator=make_generator(1))
    assert ((out - image * brain).abs().flatten(1).max(dim=1).values > 1e-5).all()
    assert out.min() >= 0
    assert out.max() <= 1
    assert not out[~brain].any()
    assert torch.equal(image, before)


def test_the_generator_decides(slices):
    first, again, other = (augment(*slices, AugmentationConfig(), generator=make_generator(n)) for n in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_blur_keeps_a_flat_slice_flat_and_lowers_variance(slices):
    config = AugmentationConfig(**{**NOTHING, "blur": 1})
    flat = augment(torch.full((2, 1, 20, 20), 0.5), torch.ones(2, 1, 20, 20), config, generator=make_generator(0))
    torch.testing.assert_close(flat[..., 3:-3, 3:-3], torch.full((2, 1, 14, 14), 0.5))
    image = slices[0]
    rough = augment(image, torch.ones_like(image), config, generator=make_generator(0))
    assert (rough.var(dim=(1, 2, 3)) < image.var(dim=(1, 2, 3))).all()


def test_gamma_keeps_the_order_of_intensities(slices):
    image, _ = slices
    config = AugmentationConfig(**{**NOTHING, "gamma": 1})
    out = augment(image, torch.ones_like(image), config, generator=make_generator(3))
    for before, after in zip(image.flatten(1), out.flatten(1), strict=True):
        assert (after[before.argsort()].diff() >= 0).all()


def test_tensors_are_flipped_together(slices):
    image, brain = slices
    many, ids = image[:1].repeat(40, 1, 1, 1), torch.arange(40.0)[:, None, None, None].expand(40, 1, 40, 32)
    lesion = many > 0.5
    config = AugmentationConfig(**{**NOTHING, "flip": 0.5})
    turned, mask, same = flip(many, lesion, ids, config=config, generator=make_generator(0))
    assert torch.equal(mask, turned > 0.5)
    assert torch.equal(same, ids)
    mirrored = [torch.equal(slice_, image[0].flip(1)) for slice_ in turned]
    assert 8 < sum(mirrored) < 32
    assert all(m or torch.equal(slice_, image[0]) for m, slice_ in zip(mirrored, turned, strict=True))
    (unturned,) = flip(brain, config=AugmentationConfig(**NOTHING), generator=make_generator(0))
    assert torch.equal(unturned, brain)


def test_what_came_later_is_not_dumped_while_off():
    assert not {"affine", "noise", "resolution", "window"} & set(AugmentationConfig().model_dump())
    assert AugmentationConfig(noise=0.5).model_dump()["noise"] == 0.5


@pytest.mark.parametrize("later", [{}, {"affine": 1}, {"noise": 1, "resolution": 1}, {"window": 1}])
def test_what_came_later_leaves_the_draws_of_all_else_as_they_were(slices, later):
    """The slices of seed 1 and the draws after them, written down before these options existed."""
    config, generator = AugmentationConfig(**later), make_generator(1)
    out = augment(*slices, config, generator=generator)
    shift(*slices, config=config, generator=generator)
    torch.testing.assert_close(torch.rand(3, generator=generator), torch.tensor(NEXT), rtol=0, atol=0)
    kept = bool((out[:, 0, 20, 16] - torch.tensor(PIXELS)).abs().max() < 1e-5)
    assert kept == (not {"noise", "window"} & set(later))


def test_each_that_came_later_draws_from_a_stream_of_its_own(slices):
    _, brain = slices
    flat = brain * 0.5
    first = [shift(flat, config=AugmentationConfig(affine=1), generator=make_generator(n))[0] for n in (1, 1, 2)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    used = make_generator(1)
    torch.rand(5, generator=used)
    assert torch.equal(shift(flat, config=AugmentationConfig(affine=1), generator=used)[0], first[0])
    noise = {**NOTHING, "noise": 1}
    grainy = augment(flat, brain, AugmentationConfig(**noise), generator=make_generator(1))
    coarse = augment(flat, brain, AugmentationConfig(**noise, resolution=1e-9), generator=make_generator(1))
    assert torch.equal(grainy, coarse)


def test_rician_noise_lifts_the_background_and_has_the_variance_asked_for():
    sigma = torch.tensor([0.02, 0.05]).view(2, 1, 1, 1)
    noisy = add_rician_noise(torch.full((2, 1, 200, 200), 0.8), sigma, generator=make_generator(0))
    torch.testing.assert_close(noisy.std(dim=(1, 2, 3)), sigma.flatten(), rtol=0.03, atol=0)
    empty = add_rician_noise(torch.zeros(2, 1, 200, 200), sigma, generator=make_generator(0))
    torch.testing.assert_close(empty.mean(dim=(1, 2, 3)), sigma.flatten() * (torch.pi / 2) ** 0.5, rtol=0.03, atol=0)


def test_resolution_of_one_is_the_identity_and_a_ramp_stays_a_ramp(slices):
    image, _ = slices
    torch.testing.assert_close(lower_resolution(image, torch.ones(6, 2)), image)
    ramp = torch.linspace(0, 1, 60).expand(2, 1, 40, 60).contiguous()
    coarse = lower_resolution(ramp, torch.tensor([[1.0, 3.0], [2.0, 2.5]]))
    torch.testing.assert_close(coarse[..., 8:-8], ramp[..., 8:-8], atol=0.004, rtol=0)
    stripes = torch.rand(1, 1, 60, 1, generator=make_generator(0)).expand(2, 1, 60, 60).contiguous()
    out = lower_resolution(stripes, torch.tensor([[1.0, 3.0], [3.0, 1.0]]))
    torch.testing.assert_close(out[0], stripes[0])
    assert out[1].diff(dim=-2).abs().mean() < 0.3 * stripes[1].diff(dim=-2).abs().mean()


def test_an_affine_moves_image_and_masks_alike(slices):
    _, brain = slices
    config = AugmentationConfig(affine=1)
    image, mask = shift(brain.float(), brain, config=config, generator=make_generator(0))
    assert mask.dtype == torch.bool
    assert torch.equal(image >= 0.5, mask)
    assert (mask != brain).flatten(1).any(dim=1).all()
    area = mask.sum(dim=(1, 2, 3)) / brain.sum(dim=(1, 2, 3))
    assert ((area > 0.8) & (area < 1.25)).all()


def test_another_window_keeps_the_order_and_what_lies_outside(slices):
    image, brain = slices
    none = {"gamma": 0, "bias_field": 0, "blur": 0, "ghosting": 0}
    ramp = torch.linspace(0, 1, image.shape[-1]).expand_as(image) * brain
    seen = augment(ramp, brain, AugmentationConfig(**none, window=1), generator=make_generator(4))
    for before, after, inside in zip(ramp, seen, brain, strict=True):
        x, y = before[inside], after[inside]
        order = x.argsort()
        assert (y[order].diff() >= -1e-6).all()
        free = (y > 0) & (y < 1)
        slope = ((y[free] - y[free].mean()) * (x[free] - x[free].mean())).sum() / (
            x[free] - x[free].mean()
        ).square().sum()
        torch.testing.assert_close(y[free] - y[free].mean(), slope * (x[free] - x[free].mean()), atol=1e-5, rtol=0)
        assert 1 / (1.2 + 0.45) - 1e-4 <= slope <= 1 / (0.85 - 0.1) + 1e-4
    assert not seen[~brain].any()
