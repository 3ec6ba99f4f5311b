import pytest
import torch

from halebrain.core.config import parse_config
from halebrain.core.errors import ConfigError
from halebrain.core.similarity import ssim_map
from halebrain.models.segmentation import Segmenter, SegmenterConfig

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
