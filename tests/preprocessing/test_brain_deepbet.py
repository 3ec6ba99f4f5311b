"""deepbet with stand-in networks whose answer is known, and with the published ones where they are installed."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch

from halebrain.core.errors import DataError, UnavailableError
from halebrain.core.types import Volume
from halebrain.preprocessing.brain import deepbet, extract_automatically
from halebrain.preprocessing.brain.deepbet import extract_by_deepbet, find_networks, is_available


class Bright(torch.nn.Module):
    """Brain is what is brighter than the mean of what the network is given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        brain = (x > 0.449 + 0.226).float()
        return torch.cat([1 - brain, brain], 1)


class Dark(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.ones_like(x), torch.zeros_like(x)], 1)


class OneChannel(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Small(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x], 1)[:, :, :4]


def put(folder: Path, box: torch.nn.Module, outline: torch.nn.Module) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.jit.script(box).save(str(folder / "bbox_model.pt"))
    torch.jit.script(outline).save(str(folder / "model.pt"))
    return folder


@pytest.fixture
def networks(monkeypatch, tmp_path):
    """Return what puts networks into the folder that is named."""

    def install(box=None, outline=None):
        folder = put(tmp_path / "networks", box or Bright(), outline or Bright())
        monkeypatch.setenv("HALEBRAIN_DEEPBET_WEIGHTS", str(folder))
        return folder

    return install


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """A distribution of another name with the two files, as pip leaves it."""
    site = tmp_path / "site"
    put(site / "data" / "models", Bright(), Bright())
    info = site / "standin_deepbet-1.0.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: standin-deepbet\nVersion: 1.0.2\n")
    rows = ["data/models/bbox_model.pt,,", "data/models/model.pt,,", "standin_deepbet/__init__.py,,"]
    (info / "RECORD").write_text("\n".join(rows) + "\n")
    package = site / "standin_deepbet"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('the package was imported')\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(deepbet, "DISTRIBUTION", "standin-deepbet")
    return site / "data" / "models"


@pytest.mark.slow
def test_the_mask_lies_on_the_grid_of_the_scan(networks, oblique):
    volume, brain = oblique
    networks()
    found = extract_by_deepbet(volume)
    assert (found.method, found.confidence) == ("deepbet", 1.0)
    assert 2 * (found.mask & brain).sum() / (found.mask.sum() + brain.sum()) > 0.99


@pytest.mark.slow
def test_the_files_of_an_installed_distribution_are_found_without_importing_it(installed, oblique):
    assert find_networks() == (installed / "bbox_model.pt", installed / "model.pt")
    volume, brain = oblique
    assert abs(extract_by_deepbet(volume).mask.sum() / brain.sum() - 1) < 0.02


def test_a_distribution_without_the_networks_is_none(installed):
    (installed / "model.pt").unlink()
    assert not is_available()


@pytest.mark.slow
def test_islands_go_and_holes_are_filled(networks, oblique):
    volume, _ = oblique
    data = volume.data.copy()
    data[46:50, 28:32, 22:25] = 0
    data[2:6, 2:5, 2:4] = 100
    networks()
    found = extract_by_deepbet(Volume(data, volume.affine))
    assert found.mask[48, 30, 23]
    assert not found.mask[:8, :6, :5].any()


@pytest.mark.slow
def test_auto_takes_it_after_hd_bet(networks, tools, oblique):
    networks()
    assert extract_automatically(oblique[0]).method == "deepbet"
    tools("hd-bet", "print('--save_bet_mask')")  # without weights
    found = extract_automatically(oblique[0])
    assert found.method == "deepbet"
    assert [note.split()[0] for note in found.notes] == ["HD-BET"]


def test_without_the_distribution_the_ways_to_get_it_are_told(oblique):
    assert not is_available()
    with pytest.raises(UnavailableError, match=r"pip install --no-deps.*HALEBRAIN_DEEPBET_WEIGHTS") as caught:
        extract_by_deepbet(oblique[0])
    assert caught.value.exit_code == 69


def test_a_named_folder_without_them_is_told(monkeypatch, oblique, tmp_path):
    monkeypatch.setenv("HALEBRAIN_DEEPBET_WEIGHTS", str(tmp_path))
    assert is_available()
    with pytest.raises(UnavailableError, match=r"no bbox_model\.pt"):
        extract_by_deepbet(oblique[0])


@pytest.mark.parametrize(
    ("network", "message"),
    [(Dark(), "got 0 ml from deepbet"), (OneChannel(), "fails"), (Small(), r"of shape \(4, 128, 128\)")],
)
def test_what_goes_wrong_is_told_in_one_line(networks, oblique, network, message):
    networks(box=network)
    with pytest.raises(DataError, match=message) as caught:
        extract_by_deepbet(oblique[0])
    assert "\n" not in str(caught.value)


def test_a_constant_scan_has_no_brain(networks):
    networks()
    with pytest.raises(DataError, match="0 ml"):
        extract_by_deepbet(Volume(np.ones((20, 20, 20), np.float32), np.diag([5.0, 5, 5, 1])))


@pytest.mark.parametrize("content", [b"", b"no network"])
def test_what_is_no_network_is_refused(networks, oblique, content):
    (networks() / "bbox_model.pt").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be opened.*bbox_model\.pt"):
        extract_by_deepbet(oblique[0])


def test_weights_that_would_run_code_are_no_network(networks, oblique, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    torch.save({"model": Evil()}, networks() / "bbox_model.pt")
    with pytest.raises(DataError, match="cannot be opened"):
        extract_by_deepbet(oblique[0])
    assert not (tmp_path / "touched").exists()


@pytest.mark.slow
@pytest.mark.real_data
def test_the_published_networks_outline_a_real_brain(real_data, monkeypatch):
    monkeypatch.setattr(deepbet, "DISTRIBUTION", "deepbet")
    try:
        distribution("deepbet")
    except PackageNotFoundError:
        pytest.skip("the distribution deepbet is not installed")
    from halebrain.io.volume import read_array, read_volume

    folder = real_data / "healthy_wholehead_t1_2mm_ixi"
    found = extract_by_deepbet(read_volume(folder / "IXI012_T1.nii.gz"))
    truth = read_array(folder / "IXI012_desc-dlmuse_dseg.nii.gz")[0] > 0
    assert 2 * (found.mask & truth).sum() / (found.mask.sum() + truth.sum()) > 0.93
