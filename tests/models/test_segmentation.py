import pytest
import torch

from halebrain.core.config import parse_config
from halebrain.core.errors import ConfigError
from halebrain.core.similarity import ssim_map
from halebrain.models.segmentation import (
    Segmenter,
    SegmenterConfig,
    StandardisedConv2d,
    middle_divisor,
    weights_for,
    with_neighbours,
)

STREAMS = [("image",), ("residual",), ("residual", "image"), ("image", "reconstruction"), ("absolute_residual", "ssim")]


def build(**settings):
    torch.manual_seed(0)
    return Segmenter(SegmenterConfig(**({"channels": (8, 16)} | settings))).eval()


def size(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("encoder", ["shared", "separate", "early"])
@pytest.mark.parametrize("patch", [1, 2])
def test_slices_are_treated_one_by_one(streams, encoder, patch):
    segmenter = build(channels=(8, 16, 24), streams=streams, encoder=encoder, patch=patch)
    image, reconstruction = torch.rand(2, 3, 1, 32, 24)
    together = segmenter(image, reconstruction)
    assert together.shape == image.shape
    alone = torch.cat([segmenter(image[n : n + 1], reconstruction[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    unmoved = torch.allclose(together, segmenter(image, reconstruction.flip(0)))
    assert unmoved == (not segmenter.config.needs_reconstruction)


def test_the_published_block_by_hand():
    convolution = StandardisedConv2d(1, 1)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([[0.0, 0, 0], [0, 9, 0], [0, 0, 0]]).view(1, 1, 3, 3))
        convolution.bias.fill_(0.5)
    # Mean 1, standard deviation 3 (unbiased): the filter becomes 8/3 in the middle and −1/3 around.
    image = torch.arange(9.0).view(1, 1, 3, 3)
    found = convolution(image)[0, 0].detach()
    assert float(found[1, 1]) == pytest.approx((9 * 4 - 36) / 3 + 0.5, abs=1e-3)
    # At the corner the mirrored neighbours count: 0; 1, 1; 3, 3; 4, 4, 4, 4.
    assert float(found[0, 0]) == pytest.approx((9 * 0 - (2 * 1 + 2 * 3 + 4 * 4)) / 3 + 0.5, abs=1e-3)
    scaled = StandardisedConv2d(1, 1)
    with torch.no_grad():
        scaled.weight.copy_(5 * convolution.weight + 2)
        scaled.bias.copy_(convolution.bias)
    torch.testing.assert_close(scaled(image), convolution(image), atol=1e-3, rtol=0)


def test_the_published_network_has_its_groups_order_and_pooling():
    assert [middle_divisor(width) for width in (64, 128, 256, 512, 1)] == [8, 16, 16, 32, 1]
    segmenter = build(channels=(64, 128, 256), block="kascenas")
    for level, groups in zip(segmenter.encoders[0], (8, 16, 16), strict=True):
        assert [type(layer).__name__ for layer in level] == ["StandardisedConv2d", "SiLU", "GroupNorm"] * 2
        assert [level[n].num_groups for n in (2, 5)] == [groups, groups]
    assert size(segmenter) == size(build(channels=(64, 128, 256)))
    small = build(block="kascenas", streams=("image",))
    seen = []
    small.encoders[0][1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    small.encoders[0][0].register_forward_hook(lambda _, __, out: seen.append(out))
    small(torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 16))
    torch.testing.assert_close(seen[1], torch.nn.functional.avg_pool2d(seen[0], 2))
    assert "block" not in build().config.model_dump()


def test_a_shared_encoder_is_one_and_separate_ones_are_many():
    pair, image, separate = build(), build(streams=("image",)), build(encoder="separate")
    assert size(pair.encoders) == size(image.encoders)
    assert size(separate.encoders) == 2 * size(image.encoders)
    assert pair.decoder[0][0].in_channels == 2 * image.decoder[0][0].in_channels


def test_an_early_encoder_sees_all_streams_as_channels_and_its_decoder_is_that_of_one():
    early, image = build(encoder="early", patch=2), build(streams=("image",), patch=2)
    assert early.encoders[0][0][0].in_channels == 2 * image.encoders[0][0][0].in_channels
    assert size(early.decoder) == size(image.decoder)
    alone = build(encoder="early", streams=("image",), patch=2)
    assert torch.equal(alone(*[torch.ones(1, 1, 16, 16)] * 2), image(*[torch.ones(1, 1, 16, 16)] * 2))


def test_neighbours_are_further_channels_of_the_early_encoder_and_matter_each():
    plain, seeing = build(encoder="early", patch=2), build(encoder="early", patch=2, neighbours=(-2, 1))
    assert seeing.encoders[0][0][0].in_channels == 2 * plain.encoders[0][0][0].in_channels
    image, reconstruction = torch.rand(2, 3, 16, 16), torch.rand(2, 1, 16, 16)
    out = seeing(image, reconstruction)
    assert out.shape == reconstruction.shape
    for channel in range(3):
        other = image.clone()
        other[:, channel] += 0.3
        assert (seeing(other, reconstruction) - out).abs().max() > 1e-4
    assert "neighbours" not in plain.config.model_dump()


@pytest.mark.parametrize("grown", [{"neighbours": (-2, 1)}, {"neighbours": (1,)}, {}])
def test_a_network_that_grew_begins_as_the_smaller_one_ended(grown):
    before = build(encoder="early", patch=2)
    torch.manual_seed(1)
    after = Segmenter(SegmenterConfig(channels=(8, 16), encoder="early", patch=2, **grown)).eval()
    reconstruction = torch.rand(2, 1, 16, 16)
    image = torch.rand(2, 1 + len(after.visible_neighbours), 16, 16)
    after.load_state_dict(weights_for(after, before))
    torch.testing.assert_close(after(image, reconstruction), before(image[:, :1], reconstruction))
    after.load_state_dict(weights_for(after, after))
    if grown:
        with pytest.raises(RuntimeError):
            before.load_state_dict(weights_for(before, after))
    wider = build(channels=(16, 16), encoder="early", patch=2, **grown)
    with pytest.raises(RuntimeError):
        wider.load_state_dict(weights_for(wider, before))


def test_a_stack_shows_each_slice_with_those_around_it_and_nothing_beyond_its_ends():
    stack = torch.arange(1.0, 6.0).view(5, 1, 1, 1)
    seen = with_neighbours(stack, (-3, -1, 1, 7, -7, -5))[:, :, 0, 0].int().tolist()
    assert all(row[5:] == [0, 0] for row in seen)
    seen = [row[:5] for row in seen]
    assert seen == [[1, 0, 0, 2, 0], [2, 0, 1, 3, 0], [3, 0, 2, 4, 0], [4, 1, 3, 5, 0], [5, 2, 4, 0, 0]]
    assert torch.equal(with_neighbours(stack, ()), stack)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [((0, 1), "other slices"), ((1, 1), "each once"), ((1,), "encoder: early")],
)
def test_neighbours_that_make_no_sense_are_refused(wrong, word):
    settings = {"neighbours": wrong, "encoder": "separate" if word == "encoder: early" else "early"}
    with pytest.raises(ConfigError, match=word):
        parse_config(SegmenterConfig, settings, where="test")


def test_a_run_trains_one_network_and_reads_settings_of_earlier_versions():
    assert SegmenterConfig.model_validate({"inputs": "image"}) == SegmenterConfig(streams=("image",))
    assert SegmenterConfig.model_validate({"others": [], "contrasts": ["T2w"]}) == SegmenterConfig()
    with pytest.raises(ConfigError, match="a run trains one network; halebrain models join"):
        parse_config(SegmenterConfig, {"others": [{}]})


@pytest.mark.parametrize("encoder", ["shared", "separate", "early"])
def test_the_pair_sees_residual_and_image(encoder):
    segmenter = build(encoder=encoder)
    image, reconstruction = torch.rand(2, 1, 1, 16, 16)
    out = segmenter(image, reconstruction)
    # The same residual of a brighter image, and the same image with another residual, both matter.
    assert (segmenter(image + 0.3, reconstruction + 0.3) - out).abs().max() > 1e-4
    assert (segmenter(image, reconstruction * 0.5) - out).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("stream", "same"),
    [("residual", lambda x, r: (x + 0.2, r + 0.2)), ("absolute_residual", lambda x, r: (r, x))],
)
def test_a_view_that_stays_gives_the_same_answer(stream, same):
    segmenter = build(streams=(stream,))
    image, reconstruction = torch.rand(2, 1, 1, 16, 16)
    torch.testing.assert_close(segmenter(image, reconstruction), segmenter(*same(image, reconstruction)))


def test_a_turned_residual_is_that_to_the_reconstruction_turned_by_half():
    turned, plain = build(streams=("turned_residual",)), build(streams=("residual",))
    image, reconstruction = torch.rand(2, 1, 1, 16, 16)
    expected = plain(image, torch.rot90(reconstruction, 2, (2, 3)))
    torch.testing.assert_close(turned(image, reconstruction), expected)
    assert SegmenterConfig(streams=("turned_residual",)).needs_reconstruction


def test_the_ssim_stream_sees_the_ssim_map():
    by_ssim, by_image = build(streams=("ssim",)), build(streams=("image",))
    image, reconstruction = torch.rand(2, 1, 1, 16, 16)
    expected = by_image(1 - ssim_map(image, reconstruction), reconstruction)
    torch.testing.assert_close(by_ssim(image, reconstruction), expected)


def test_deep_supervision_speaks_at_each_level_and_changes_no_answer():
    plain, deep = build(channels=(8, 16, 24, 32)), build(channels=(8, 16, 24, 32), deep_supervision=True)
    deep.load_state_dict(plain.state_dict(), strict=False)
    image, reconstruction = torch.rand(2, 2, 1, 32, 32)
    assert [tuple(x.shape[-2:]) for x in deep.all_logits(image, reconstruction)] == [(32, 32), (16, 16), (8, 8)]
    assert torch.equal(deep(image, reconstruction), plain(image, reconstruction))
    assert len(plain.all_logits(image, reconstruction)) == 1


def test_an_untrained_network_gives_its_prior_and_differs_in_nothing_else():
    rare, even = build(prior=0.02, patch=2), build(patch=2)
    image = torch.rand(3, 1, 32, 32)
    with torch.inference_mode():
        probability = rare(image, image).sigmoid()
    assert 0.01 < float(probability.mean()) < 0.04
    differing = {
        name
        for (name, a), b in zip(rare.state_dict().items(), even.state_dict().values(), strict=True)
        if not torch.equal(a, b)
    }
    assert differing == {"head.bias"}
    assert "prior" not in even.config.model_dump()


def test_inputs_are_left_alone_and_every_weight_learns():
    segmenter = build(channels=(8, 16, 32), patch=2, deep_supervision=True, encoder="separate").train()
    image, reconstruction = torch.rand(2, 2, 1, 32, 24)
    before = image.clone(), reconstruction.clone()
    sum(x.square().mean() for x in segmenter.all_logits(image, reconstruction)).backward()
    assert torch.equal(image, before[0])
    assert torch.equal(reconstruction, before[1])
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in segmenter.parameters())


@pytest.mark.parametrize("streams", [[], ["image", "image"], ["picture"]])
def test_streams_that_make_no_sense_are_refused(streams):
    with pytest.raises(ConfigError):
        parse_config(SegmenterConfig, {"streams": streams})


def test_weights_go_on_with_the_same_inputs_alone() -> None:
    early = {"channels": (8, 16), "encoder": "early"}
    before = SegmenterConfig.model_validate(early | {"neighbours": (-1, 1)})
    assert before.inputs_fit(before)
    assert SegmenterConfig.model_validate(early).inputs_fit(before)
    assert not before.inputs_fit(before.model_copy(update={"neighbours": (-2, 2)}))
    assert not before.inputs_fit(before.model_copy(update={"streams": ("image", "residual")}))
