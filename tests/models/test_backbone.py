import pytest
import torch
from safetensors.torch import save_file

from halebrain.core.errors import ConfigError, DataError, MissingInputError
from halebrain.models.backbone import Backbone, load_backbone


@pytest.fixture
def stored():
    """What torchvision's file of a narrow ResNet-18 would hold: a fourth stage and a classifier too."""
    torch.manual_seed(5)
    source = Backbone("resnet18", width=8)
    weights = {k: torch.rand_like(v) if v.is_floating_point() else v for k, v in source.state_dict().items()}
    return weights | {
        "fc.weight": torch.zeros(10, 64),
        "fc.bias": torch.zeros(10),
        "layer4.0.conv1.weight": torch.zeros(1),
    }


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_gives_its_weights(tmp_path, stored, suffix):
    path = tmp_path / f"resnet18{suffix}"
    if suffix == ".pth":
        torch.save(stored, path)
    else:
        save_file(stored, path)
    backbone = Backbone("resnet18", width=8)
    assert len(load_backbone(backbone, path)) == 64
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, stored[name]), name


def test_files_without_counters_of_batches_fit_too(tmp_path, stored):
    torch.save({k: v for k, v in stored.items() if "num_batches" not in k}, tmp_path / "old.pth")
    load_backbone(Backbone("resnet18", width=8), tmp_path / "old.pth")


def test_the_names_and_sizes_are_torchvisions():
    names = Backbone("resnet50").state_dict()
    assert names["conv1.weight"].shape == (64, 3, 7, 7)
    assert names["layer2.0.conv2.weight"].shape == (128, 128, 3, 3)
    assert names["layer3.5.conv3.weight"].shape == (1024, 256, 1, 1)
    assert names["layer1.0.downsample.1.running_mean"].shape == (256,)
    wide = Backbone("wide_resnet50_2").state_dict()
    assert wide["layer1.0.conv1.weight"].shape == (128, 64, 1, 1)
    assert wide["layer1.2.conv3.weight"].shape == (256, 128, 1, 1)
    assert "layer1.0.downsample.0.weight" not in Backbone("resnet18").state_dict()
    assert not [name for name in names if name.startswith(("fc", "layer4", "mean", "std"))]


def test_nothing_is_ever_made_up(tmp_path, stored):
    backbone = Backbone("resnet18", width=8)
    with pytest.raises(ConfigError, match="pretrained backbone"):
        load_backbone(backbone, None)
    with pytest.raises(MissingInputError, match=r"no\.pth"):
        load_backbone(backbone, tmp_path / "no.pth")
    (tmp_path / "bad.pth").write_bytes(b"nothing of the kind")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing of the kind")
    for name in ("bad.pth", "bad.safetensors"):
        with pytest.raises(DataError, match=name):
            load_backbone(backbone, tmp_path / name)
    torch.save(stored, tmp_path / "narrow.pth")
    with pytest.raises(DataError, match="do not fit"):
        load_backbone(Backbone("resnet18"), tmp_path / "narrow.pth")
    with pytest.raises(DataError, match="resnet50"):
        load_backbone(Backbone("resnet50", width=8), tmp_path / "narrow.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(DataError, match="state_dict"):
        load_backbone(backbone, tmp_path / "list.pth")


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"a": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(DataError, match=r"trap\.pth"):
        load_backbone(Backbone("resnet18", width=8), tmp_path / "trap.pth")


def test_it_is_frozen_whatever_one_does():
    backbone = Backbone("resnet18", width=8).train()
    with pytest.raises(RuntimeError, match="loaded"):
        backbone(torch.rand(2, 1, 64, 48))
    backbone.load_state_dict(backbone.state_dict())
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    levels = backbone(torch.rand(2, 1, 64, 48))
    assert [tuple(x.shape) for x in levels] == [(2, 8, 16, 12), (2, 16, 8, 6), (2, 32, 4, 3)]
    assert not backbone.training
    assert not any(p.requires_grad for p in backbone.parameters())
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
