import json
import shutil
import zipfile

import pytest
import torch

from halebrain.core.errors import CannotWriteError, DataError, MissingInputError
from halebrain.core.random import draw_seeds, make_generator
from halebrain.models.bundle import (
    Bundle,
    ModelConfig,
    build_networks,
    load_bundle,
    model_sha256,
    save_bundle,
    store_calibration,
)

UNET = {"channels": [8, 8], "blocks_per_level": 1, "patch": 2, "norm_groups": 4, "attention_head_channels": 0}
CONFIG = ModelConfig.model_validate(
    {
        "kind": "detector",
        "reconstructor": {"name": "anoddpm", "settings": {"unet": UNET}},
        "segmenter": {"channels": [8, 8], "patch": 2},
    }
)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(1)
    reconstructor, segmenter = build_networks(CONFIG)
    bundle = Bundle(CONFIG, reconstructor, segmenter, {"stage1": {"seconds": 1}}, {})
    sha = save_bundle(bundle, tmp_path / "model", card="# card")
    return tmp_path / "model", bundle, sha


def test_a_bundle_gives_the_same_outputs_after_the_round_trip(saved):
    path, bundle, sha = saved
    loaded = load_bundle(path)
    image, seeds = torch.rand(2, 1, 16, 16), draw_seeds(2, make_generator(0))
    first = bundle.reconstructor.eval().reconstruct(image, level=500, seeds=seeds)
    assert torch.equal(first, loaded.reconstructor.reconstruct(image, level=500, seeds=seeds))
    assert torch.equal(bundle.segmenter.eval()(image, first), loaded.segmenter(image, first))
    assert loaded.sha256 == sha
    assert not any(p.requires_grad for p in loaded.reconstructor.parameters())
    assert not loaded.segmenter.training
    assert sorted(p.name for p in path.iterdir()) == ["card.md", "config.yaml", "manifest.json", "model.safetensors"]


def test_a_zip_loads_as_well(saved, tmp_path):
    path, _, sha = saved
    shutil.make_archive(str(tmp_path / "packed"), "zip", path.parent, path.name)
    assert zipfile.is_zipfile(tmp_path / "packed.zip")
    assert load_bundle(tmp_path / "packed.zip").sha256 == sha


@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml", "card.md"])
def test_a_changed_byte_is_refused(saved, name):
    path, _, _ = saved
    raw = bytearray((path / name).read_bytes())
    raw[-1] ^= 1
    (path / name).write_bytes(bytes(raw))
    with pytest.raises(DataError, match=f"sha256.*{name}"):
        load_bundle(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [('"seconds": 1', '"seconds": 2'), ('"training"', '"trained"'), ('"calibration": {}', '"calibration": {"a": 1}')],
)
def test_a_changed_manifest_is_refused(saved, old, new):
    path, _, _ = saved
    text = (path / "manifest.json").read_text()
    assert old in text
    (path / "manifest.json").write_text(text.replace(old, new))
    with pytest.raises(DataError, match="manifest"):
        load_bundle(path)


@pytest.mark.parametrize("place", [0.02, 0.5, 0.99])
def test_a_changed_byte_in_a_zip_is_refused(saved, tmp_path, place):
    path, _, _ = saved
    archive = tmp_path / "packed.zip"
    shutil.make_archive(str(archive.with_suffix("")), "zip", path)
    raw = bytearray(archive.read_bytes())
    raw[int(place * len(raw))] ^= 255
    archive.write_bytes(bytes(raw))
    with pytest.raises(DataError):
        load_bundle(archive)


def test_missing_and_unknown_files_are_refused(saved):
    path, _, _ = saved
    (path / "weights.pkl").write_bytes(b"")
    with pytest.raises(DataError, match=r"weights\.pkl"):
        load_bundle(path)
    (path / "weights.pkl").unlink()
    (path / "card.md").unlink()
    with pytest.raises(DataError, match=r"no card\.md"):
        load_bundle(path)
    with pytest.raises(MissingInputError):
        load_bundle(path / "nowhere")


def test_weights_of_another_network_are_refused(saved, tmp_path):
    _, bundle, _ = saved
    other = CONFIG.model_copy(update={"segmenter": CONFIG.segmenter.model_copy(update={"channels": (8, 16)})})
    wrong = Bundle(other, bundle.reconstructor, bundle.segmenter, {}, {})
    save_bundle(wrong, tmp_path / "wrong", card="")
    with pytest.raises(DataError, match="fit the configuration"):
        load_bundle(tmp_path / "wrong")


def test_calibration_changes_the_manifest_only(saved):
    path, _, sha = saved
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    store_calibration(path, {"default": "dice"})
    after = {p.name: p.read_bytes() for p in path.iterdir()}
    assert [name for name in before if before[name] != after[name]] == ["manifest.json"]
    loaded = load_bundle(path)
    assert loaded.calibration == {"default": "dice"}
    assert loaded.sha256 == sha
    assert json.loads(after["manifest.json"])["training"] == {"stage1": {"seconds": 1}}


def test_the_hash_is_known_before_writing(saved):
    _, bundle, sha = saved
    assert model_sha256(bundle) == sha


def test_an_existing_folder_is_not_replaced_unasked(saved):
    path, bundle, _ = saved
    with pytest.raises(CannotWriteError):
        save_bundle(bundle, path, card="")
