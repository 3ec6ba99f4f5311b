import pytest
import torch

from halebrain.core.errors import ConfigError
from halebrain.core.random import draw_seeds, make_generator
from halebrain.models.backbone import Backbone
from halebrain.models.bundle import Bundle, ModelConfig, load_bundle, save_bundle
from halebrain.models.reconstruction import build_reconstructor

SETTINGS = {
    "fae": {"backbone_width": 8, "channels": [16, 16]},
    "rd": {"backbone": "resnet18", "backbone_width": 8},
}


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(3)
    torch.save(Backbone("resnet18", width=8).state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


@pytest.mark.parametrize("name", ["fae", "rd"])
def test_training_needs_the_file_and_a_saved_model_does_not(name, weights, tmp_path):
    with pytest.raises(ConfigError, match="pretrained backbone"):
        build_reconstructor(name, SETTINGS[name]).prepare()
    built = build_reconstructor(name, SETTINGS[name] | {"weights": str(weights)})
    assert len(built.prepare()) == 64
    stored = torch.load(weights)
    assert torch.equal(built.backbone.conv1.weight, stored["conv1.weight"])
    spec = {"name": name, "settings": built.settings.model_dump(mode="json")}
    assert spec["settings"]["weights"] is None
    config = ModelConfig(kind="reconstructor", reconstructor=spec)
    save_bundle(Bundle(config, built, None, {}, {}), tmp_path / "model", card="card")
    weights.unlink()
    image, seeds = torch.rand(2, 1, 32, 32), draw_seeds(2, make_generator(0))
    again = load_bundle(tmp_path / "model").reconstructor
    first = built.eval().anomaly_map(image, level=None, seeds=seeds)
    assert torch.equal(first, again.anomaly_map(image, level=None, seeds=seeds))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fae", "rd"])
def test_what_was_never_seen_stands_out(name):
    torch.manual_seed(0)
    built = build_reconstructor(name, SETTINGS[name])
    built.load_state_dict(built.state_dict())  # a stand-in for the file
    frozen = {k: v.clone() for k, v in built.backbone.state_dict().items()}
    rows = torch.linspace(0.2, 0.6, 64)[:, None].expand(64, 64)
    healthy = torch.stack([rows.roll(n, 0) for n in range(0, 64, 16)])[:, None]
    optimizer = torch.optim.Adam([p for p in built.parameters() if p.requires_grad], lr=3e-3)
    for step in range(60):
        optimizer.zero_grad()
        built.train().loss(healthy, generator=make_generator(step)).backward()
        optimizer.step()
    assert all(torch.equal(v, frozen[k]) for k, v in built.backbone.state_dict().items())
    ill = healthy.clone()
    checks = (torch.arange(20)[:, None] + torch.arange(20)) % 4 < 2
    ill[..., 22:42, 22:42] = checks.float()
    with torch.no_grad():
        found = built.eval().anomaly_map(ill, level=None, seeds=draw_seeds(4, make_generator(0)))
        usual = built.anomaly_map(healthy, level=None, seeds=draw_seeds(4, make_generator(0)))
    inside = found[..., 26:38, 26:38].mean()
    # With an untrained backbone the place is rough, but the slice is told from a healthy one.
    assert inside > 1.1 * usual[..., 26:38, 26:38].mean()
    assert found.mean() > 1.3 * usual.mean()


def test_the_published_loss_of_rd_compares_whole_maps(monkeypatch):
    # Teacher (1, 0) everywhere; the student agrees at three of four places, twice as strongly, and not at the fourth.
    teacher, student = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    teacher[:, 0] = 1
    student[:, 0], student[:, 0, 1, 1], student[:, 1, 1, 1] = 2, 0, 2
    image = torch.rand(1, 1, 32, 32)
    for settings, wanted in (({}, 1 / 4), ({"whole_maps": True}, 1 - 6 / (2 * 4))):
        built = build_reconstructor("rd", SETTINGS["rd"] | settings)
        monkeypatch.setattr(built, "_pairs", lambda _: [(teacher, student)] * 3)
        assert float(built.loss(image, generator=make_generator(0))) == pytest.approx(3 * wanted)
        assert ("whole_maps" in built.settings.model_dump()) == bool(settings)
