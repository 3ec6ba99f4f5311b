import pytest
import torch

from halebrain.core.errors import ConfigError
from halebrain.core.random import draw_seeds, make_generator
from halebrain.models.noise import NOISES
from halebrain.models.reconstruction import build_reconstructor

UNET = {"channels": [8, 16], "blocks_per_level": 1, "patch": 2, "norm_groups": 4, "attention_head_channels": 8}
ENCODER = {"blocks": [1, 1], "width": 8, "norm": "group", "features": 12}


def awake(network):
    """Zero-initialised layers hide what lies below them; move every weight away from zero."""
    generator = make_generator(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


class Oracle(torch.nn.Module):
    """A network that knows the answer: one fixed output, and how often it was asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.levels = answer, []

    def forward(self, x, level, condition):
        self.levels.append(int(level[0]))
        return self.answer.expand_as(x)


class Watch(torch.nn.Module):
    """A network that gives back what it sees, and keeps it."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, level, condition):
        self.seen.append(x)
        return x


@pytest.fixture
def image():
    return torch.rand(2, 1, 32, 24, generator=make_generator(1))


@pytest.mark.parametrize("conditioning", ["vector", "film", "cross_attention"])
def test_every_conditioning_tells_the_network_of_the_slice(conditioning, image):
    built = awake(build_reconstructor("cddpm", {"unet": UNET, "encoder": ENCODER, "conditioning": conditioning}))
    x, level = torch.randn(2, 1, 32, 24, generator=make_generator(2)), torch.tensor([500, 500])
    out = built.unet(x, level, built.encoder(image * 2 - 1))
    other = built.unet(x, level, built.encoder(1 - image * 2))
    assert (out - other).abs().max() > 1e-4
    alone = built.unet(x[:1], level[:1], built.encoder(image[:1] * 2 - 1))
    torch.testing.assert_close(out[:1], alone, atol=1e-5, rtol=1e-4)


def test_cross_attention_sees_where_things_are():
    settings = {"unet": UNET, "encoder": ENCODER, "conditioning": "cross_attention"}
    tokens = build_reconstructor("cddpm", settings).encoder(torch.zeros(2, 1, 32, 24))
    assert tokens.shape == (2, 4 * 3, 12)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cddpm", {"conditioning": "none"}),
        ("cddpm", {"encoder": None}),
        ("ddpm", {"conditioning": "film"}),
        ("cddpm", {"conditioning": "concat"}),
        ("ddpm", {"sampling_steps": 0}),
    ],
)
def test_conditioning_and_encoder_go_together(name, settings):
    with pytest.raises(ConfigError):
        build_reconstructor(name, {"unet": UNET} | settings)


@pytest.mark.parametrize("predicts", ["image", "noise"])
@pytest.mark.parametrize("steps", [1, 4])
def test_a_network_that_knows_the_answer_gives_the_healthy_slice_back(predicts, steps, image):
    built = build_reconstructor("ddpm", {"unet": UNET, "predicts": predicts, "sampling_steps": steps})
    seeds = draw_seeds(2, make_generator(0))
    noise = NOISES.get("gaussian")(seeds, 32, 24, torch.device("cpu"))
    built.unet = Oracle(image * 2 - 1 if predicts == "image" else noise)
    out = built.reconstruct(image, level=400, seeds=seeds)
    torch.testing.assert_close(out, image, atol=1e-4, rtol=1e-4)
    assert built.unet.levels == [400, 300, 200, 100][:steps]


@pytest.mark.parametrize("name", ["ddpm", "pddpm"])
@pytest.mark.parametrize("steps", [1, 3])
def test_levels_of_each_slice_give_what_each_level_alone_does(name, steps, image):
    settings = {"patch_size": 16, "stride": 16} if name == "pddpm" else {}
    built = awake(build_reconstructor(name, {"unet": UNET, "sampling_steps": steps, **settings}))
    seeds, levels = draw_seeds(2, make_generator(0)), [100, 700]
    with torch.no_grad():
        found = built.reconstruct_each(image, levels=levels, seeds=seeds)
        for n, level in enumerate(levels):
            alone = built.reconstruct(image[n : n + 1], level=level, seeds=seeds[n : n + 1])
            torch.testing.assert_close(found[n : n + 1], alone, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="lie in"):
        built.reconstruct_each(image, levels=[100, 1000], seeds=seeds)


def test_a_reconstruction_of_one_step_is_clipped_unless_it_should_not_be(image):
    answer = 3 * (image * 2 - 1)  # leaves [−1, 1]
    for name in ("ddpm", "pddpm"):
        clipped, free = (build_reconstructor(name, {"unet": UNET, "clip": clip}) for clip in (True, False))
        clipped.unet = free.unet = Oracle(answer)
        seeds = draw_seeds(2, make_generator(0))
        wanted = (answer + 1) / 2
        torch.testing.assert_close(free.reconstruct(image, level=300, seeds=seeds), wanted)
        torch.testing.assert_close(clipped.reconstruct(image, level=300, seeds=seeds), wanted.clamp(0, 1))
    assert "clip" not in clipped.settings.model_dump(), "models of before have no such setting"


def test_predicting_the_noise_is_judged_on_the_noise(image):
    built = build_reconstructor("ddpm", {"unet": UNET, "predicts": "noise"})
    fresh = float(built.loss(image, generator=make_generator(0)).detach())  # a fresh network says 0
    assert fresh == pytest.approx(1, abs=0.1)


def test_patches_cover_the_slice_and_only_they_are_noised(image):
    built = build_reconstructor("pddpm", {"unet": UNET, "patch_size": 16, "stride": 12})
    assert [p.start for p in built._cover(40)] == [0, 12, 24]
    assert [p.start for p in built._cover(32)] == [0, 8, 16]
    assert [p.start for p in built._cover(10)] == [0]
    built.unet = Watch()
    out = built.reconstruct(image, level=300, seeds=draw_seeds(2, make_generator(0)))
    seen = built.unet.seen
    assert len(seen) == 3 * 2
    touched = sum((x != image * 2 - 1).int() for x in seen)
    assert touched.min() >= 1
    assert max(int((x != image * 2 - 1)[0].sum()) for x in seen) <= 16 * 16
    assert out.shape == image.shape


@pytest.mark.parametrize(("where", "places"), [("grid", 4), ("anywhere", 40)])
def test_the_patch_of_training_lies_anywhere_or_where_the_test_has_one(where, places):
    wide = torch.rand(100, 1, 32, 32, generator=make_generator(3))
    built = build_reconstructor(
        "pddpm", {"unet": UNET, "patch_size": 16, "stride": 16, "train_patches": where, "train_levels": (500, 501)}
    )
    built.unet = Watch()
    built.loss(wide, generator=make_generator(0))
    changed = (built.unet.seen[0] != wide * 2 - 1)[:, 0].nonzero().tolist()
    firsts = {n: (row, column) for n, row, column in reversed(changed)}
    assert len(firsts) == 100
    assert len(set(firsts.values())) >= places
    assert where == "anywhere" or set(firsts.values()) == {(0, 0), (0, 16), (16, 0), (16, 16)}
    assert ("train_patches" in built.settings.model_dump()) == (where == "grid"), (
        "models of before have no such setting"
    )


def test_the_patch_loss_looks_into_the_patch_alone(image):
    built = build_reconstructor("pddpm", {"unet": UNET, "patch_size": 16, "stride": 8})
    answer = image * 2 - 1
    built.unet = Oracle(answer)
    assert float(built.loss(image, generator=make_generator(0))) == 0
    built.unet = Oracle(answer + 1)
    assert float(built.loss(image, generator=make_generator(0))) == pytest.approx(1, rel=1e-5)


def test_a_reconstructor_that_heals_is_asked_for_the_healthy_slice(image):
    healing = build_reconstructor("cddpm", {"unet": UNET, "encoder": ENCODER, "train_with_anomalies": True})
    assert healing.needs_corruption
    assert not build_reconstructor("cddpm", {"unet": UNET, "encoder": ENCODER}).needs_corruption
    seen = []
    oracle = Oracle(torch.zeros(1, 1, 1, 1))
    healing.unet = oracle
    healing.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    def corrupt(healthy, _):
        return healthy * 0

    loss = healing.loss(image, generator=make_generator(0), corrupt=corrupt)
    torch.testing.assert_close(loss, (image * 2 - 1).abs().mean())  # against the healthy slice …
    torch.testing.assert_close(seen[0], torch.full_like(image, -1.0))  # … described by the corrupted one
    with pytest.raises(ValueError, match="give corrupt"):
        healing.loss(image, generator=make_generator(0))


def test_a_patch_of_one_that_heals_is_compared_with_the_healthy_slice(image):
    settings = {"unet": UNET, "patch_size": 16, "stride": 8, "train_with_anomalies": True}
    healing, seen = build_reconstructor("pddpm", settings), []

    class Watch(torch.nn.Module):
        def forward(self, x, level, condition):
            seen.append(x)
            return image * 2  # one off the healthy slice

    healing.unet = Watch()
    loss = healing.loss(image, generator=make_generator(0), corrupt=lambda healthy, _: healthy * 0)
    assert float(loss) == pytest.approx(1, rel=1e-5)
    assert int((seen[0] != -1).sum()) == 2 * 16 * 16, "noise in the patch, the slice with its anomaly around it"
    with pytest.raises(ValueError, match="give corrupt"):
        healing.loss(image, generator=make_generator(0))


def test_noise_cannot_say_what_was_healthy():
    with pytest.raises(ConfigError, match="train_with_anomalies needs predicts 'image'"):
        build_reconstructor(
            "cddpm", {"unet": UNET, "encoder": ENCODER, "train_with_anomalies": True, "predicts": "noise"}
        )


def test_patches_that_leave_pixels_between_them_are_refused():
    with pytest.raises(ConfigError, match="stride 48 must not exceed patch_size 24"):
        build_reconstructor("pddpm", {"unet": UNET, "patch_size": 24, "stride": 48})
