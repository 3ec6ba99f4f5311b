import pytest
import torch

from halebrain.core.errors import ConfigError, DataError, MissingInputError
from halebrain.core.random import make_generator
from halebrain.models.conditioning import EncoderConfig, SliceEncoder
from halebrain.models.encoder_file import load_encoder, save_encoder, start_from
from halebrain.models.masked_encoder import MaskedAutoencoder, MaskedEncoderConfig, sparse_features

SMALL = EncoderConfig(blocks=(1, 2), width=8, norm="group", patch=2)


@pytest.fixture
def image():
    return torch.rand(3, 1, 48, 32, generator=make_generator(0))


def network(norm="group", cell=8):
    torch.manual_seed(0)
    encoder = SMALL.model_copy(update={"norm": norm})
    return MaskedAutoencoder(MaskedEncoderConfig(encoder=encoder, cell=cell, decoder_width=16))


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_with_nothing_hidden_the_encoder_computes_what_it_always_does(norm, image):
    encoder = network(norm).encoder.eval()
    x = image * 2 - 1
    dense = encoder.stages(encoder.stem(torch.nn.functional.pixel_unshuffle(x, 2)))
    sparse = sparse_features(encoder, x, torch.ones_like(image, dtype=torch.bool))
    assert len(sparse) == 2
    torch.testing.assert_close(sparse[-1], dense, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("training", [True, False])
def test_what_is_hidden_cannot_be_seen(norm, training, image):
    built = network(norm).train(training)
    visible = built.draw_visible(image, make_generator(1))
    other = torch.where(visible, image, 1 - image)
    torch.testing.assert_close(built.paint(image, visible), built.paint(other, visible), rtol=0, atol=0)
    changed = torch.where(visible, 1 - image, image)
    assert (built.paint(image, visible) - built.paint(changed, visible)).abs().max() > 1e-4


def test_the_share_and_the_shape_of_hidden_cells(image):
    built = network()
    visible = built.draw_visible(image, make_generator(1))
    assert visible.shape == image.shape
    hidden = round(0.65 * 6 * 4)
    assert [(~v).sum().item() for v in visible] == [hidden * 64] * 3
    cells = visible.view(3, 1, 6, 8, 4, 8)
    assert torch.equal(cells.amax(dim=(3, 5)), cells.amin(dim=(3, 5)))
    assert not torch.equal(visible[0], visible[1])


def test_the_loss_counts_hidden_brain_alone(image):
    built = network()
    brain = torch.zeros_like(image, dtype=torch.bool)
    brain[..., :24, :16] = True
    loss = built.loss(image, brain, generator=make_generator(2))
    elsewhere = image.clone()
    elsewhere[..., 24:, 16:] = 0.5
    built.paint = lambda image, visible: torch.zeros_like(image)
    first, second = (float(built.loss(x, brain, generator=make_generator(2))) for x in (image, elsewhere))
    assert first == second
    # Painting nothing leaves the variance of normalised cells, close to 1.
    assert first == pytest.approx(1, abs=0.1)
    assert torch.isfinite(loss)
    assert float(built.loss(image, torch.zeros_like(brain), generator=make_generator(2))) == 0


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_it_learns_and_every_weight_but_the_last_takes_part(norm):
    built = network(norm).train()
    rows = torch.linspace(0, 1, 48)[:, None].expand(48, 32)
    image, brain = rows.repeat(4, 1, 1, 1), torch.ones(4, 1, 48, 32, dtype=torch.bool)
    optimizer = torch.optim.Adam([p for p in built.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for step in range(25):
        optimizer.zero_grad()
        loss = built.loss(image, brain, generator=make_generator(step))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    missing = [name for name, p in built.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    assert not built.encoder.project.weight.requires_grad


def test_cells_are_predicted_as_they_are_where_they_are_not_scaled(image):
    built = MaskedAutoencoder(MaskedEncoderConfig(encoder=SMALL, cell=8, decoder_width=16, normalise_cells=False))
    brain = torch.ones_like(image, dtype=torch.bool)
    built.paint = lambda image, visible: image + 0.5 * ~visible
    assert float(built.loss(image, brain, generator=make_generator(2))) == pytest.approx(0.25)
    assert torch.equal(built.in_contrast_of(image, image * 0.3), image * 0.3)


def test_batch_statistics_count_visible_places_alone(image):
    built = network("batch").train()
    visible = built.draw_visible(image, make_generator(1))
    bright = torch.where(visible, torch.ones_like(image), torch.zeros_like(image))
    built.paint(bright, visible)
    first = built.encoder.stem[1].running_mean.clone()
    built2 = network("batch").train()
    built2.paint(torch.where(visible, bright, 0.7), visible)
    assert torch.equal(first, built2.encoder.stem[1].running_mean)


def test_a_file_gives_the_weights_back_and_leaves_the_last_layer(tmp_path):
    source = network().encoder
    save_encoder(source, SMALL, {"step": 3}, tmp_path / "e.safetensors")
    found = load_encoder(tmp_path / "e.safetensors")
    assert found.training == {"step": 3}
    torch.manual_seed(9)
    target = SliceEncoder(SMALL, features=20)
    last = target.project.weight.clone()
    start_from(target, SMALL.model_copy(update={"features": 20}), found, where=tmp_path)
    assert torch.equal(target.project.weight, last)
    assert torch.equal(target.stem[0].weight, source.stem[0].weight)
    further = SMALL.model_copy(update={"head": "mlp"})
    target = SliceEncoder(further, features=20)
    assert target(torch.zeros(1, 1, 48, 32)).shape == (1, 20)
    start_from(target, further, found, where=tmp_path)
    assert torch.equal(target.stem[0].weight, source.stem[0].weight)
    assert "head" not in SMALL.model_dump(), "models of before have no such setting"
    wide = SMALL.model_copy(update={"width": 16})
    with pytest.raises(ConfigError, match="width 16 against 8"):
        start_from(SliceEncoder(wide, features=20), wide, found, where=tmp_path)


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(MissingInputError, match="train encoder"):
        load_encoder(tmp_path / "no.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match="safetensors"):
        load_encoder(tmp_path / "bad.safetensors")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="train encoder"):
        load_encoder(tmp_path / "other.safetensors")
    about = {"format": "halebrain-encoder-1", "config": "{", "training": "{}"}
    save_file({"a": torch.zeros(1)}, tmp_path / "half.safetensors", metadata=about)
    with pytest.raises(DataError, match="how it was made"):
        load_encoder(tmp_path / "half.safetensors")
