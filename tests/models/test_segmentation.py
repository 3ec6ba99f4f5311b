import torch

from halebrain.models.segmentation import Segmenter, SegmenterConfig


def test_both_streams_go_through_one_encoder():
    torch.manual_seed(0)
    pair = Segmenter(SegmenterConfig(channels=(8, 16)))
    image = Segmenter(SegmenterConfig(channels=(8, 16), inputs="image"))
    count = [sum(p.numel() for p in s.encoder.parameters()) for s in (pair, image)]
    assert count[0] == count[1]
    assert pair.decoder[0][0].in_channels == 2 * image.decoder[0][0].in_channels


def test_the_pair_sees_residual_and_image():
    torch.manual_seed(0)
    segmenter = Segmenter(SegmenterConfig(channels=(8, 16))).eval()
    image, reconstruction = torch.rand(2, 1, 1, 16, 16)
    out = segmenter(image, reconstruction)
    # The same residual of a brighter image, and the same image with another residual, both matter.
    assert (segmenter(image + 0.3, reconstruction + 0.3) - out).abs().max() > 1e-4
    assert (segmenter(image, reconstruction * 0.5) - out).abs().max() > 1e-4


def test_inputs_are_left_alone_and_every_weight_learns():
    segmenter = Segmenter(SegmenterConfig(channels=(8, 16, 32), patch=2))
    image, reconstruction = torch.rand(2, 2, 1, 32, 24)
    before = image.clone(), reconstruction.clone()
    segmenter(image, reconstruction).square().mean().backward()
    assert torch.equal(image, before[0])
    assert torch.equal(reconstruction, before[1])
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in segmenter.parameters())
