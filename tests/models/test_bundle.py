import hashlib
import json
import shutil
import zipfile
from dataclasses import replace

import pytest
import torch

from halebrain.core.errors import CannotWriteError, ConfigError, DataError, MissingInputError
from halebrain.core.random import draw_seeds, make_generator
from halebrain.models.bundle import (
    Bundle,
    ModelConfig,
    build_networks,
    load_bundle,
    model_sha256,
    read_summary,
    save_bundle,
)
from halebrain.models.bundle_files import About, sealed_text, store_about, store_calibration
from halebrain.models.card import model_card

UNET = {"channels": [8, 8], "blocks_per_level": 1, "patch": 2, "norm_groups": 4, "attention_head_channels": 0}
CONFIG = ModelConfig.model_validate(
    {
        "kind": "detector",
        "reconstructor": {"name": "anoddpm", "settings": {"unet": UNET}},
        "segmenter": {"channels": [8, 8], "patch": 2},
    }
)
ABOUT = About(licence="CC-BY-4.0", citation="A and B, 2025.", authors=("A", "B"), data="Ten brains.")


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


@pytest.mark.parametrize(
    ("entries", "word"),
    [
        ({"../config.yaml": b""}, "one folder"),
        ({"a/../../card.md": b""}, "one folder"),
        ({"weights.pkl": b""}, "weights.pkl"),
        ({"card.md": bytes(65 << 20)}, "'card.md' twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_that_no_bundle_has_is_refused_before_it_is_unpacked(saved, tmp_path, entries, word):
    path, _, _ = saved
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in path.iterdir():
            archive.write(file, file.name)
        for name, raw in entries.items():
            archive.writestr(name, raw)
    with pytest.raises(DataError, match=word):
        load_bundle(tmp_path / "packed.zip")


def test_a_text_larger_than_any_is_refused_before_it_is_unpacked(saved, tmp_path):
    path, _, _ = saved
    (path / "card.md").write_bytes(bytes(65 << 20))
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in path.iterdir():
            archive.write(file, file.name)
    with pytest.raises(DataError, match=r"'card\.md' of 65 MiB"):
        load_bundle(tmp_path / "packed.zip")


def sealed(path, **changed):
    """Change files of a bundle and seal it again, as one from elsewhere would be."""
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["sha256"]
    for key, value in changed.items():
        if isinstance(value, bytes):
            name = key.replace("_", ".")
            (path / name).write_bytes(value)
            manifest["files"][name] = hashlib.sha256(value).hexdigest()
        else:
            manifest[key] = value
    (path / "manifest.json").write_text(sealed_text(manifest))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training", [1]),
        ("training", {"stage1": 3}),
        ("training", {"stage1": {"train_subjects": "all"}}),
        ("training", {"stage1": {"start": {"stage1": {"val_subjects": 7}}}}),
        ("calibration", "none"),
        ("calibration", {"subjects": 3}),
    ],
)
def test_a_manifest_whose_parts_are_something_else_is_refused(saved, key, value):
    path, _, _ = saved
    sealed(path, **{key: value})
    for read in (load_bundle, read_summary):
        with pytest.raises(DataError, match=r"valid manifest\.json"):
            read(path)


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        # 72 TB of weights: nothing of them may be allocated.
        ("channels:\n  - 8\n  - 8\n", "channels:\n  - 1000000\n  - 1000000\n", "fit the configuration"),
        ("channels:\n  - 8\n  - 8\n", "channels:\n  - 99999999992\n  - 99999999992\n", "can be built"),
        ("kind: detector", "kind: [", "valid YAML"),
    ],
)
def test_a_configuration_of_any_other_size_is_refused_before_it_is_built(saved, old, new, word):
    path, _, _ = saved
    text = (path / "config.yaml").read_text()
    assert old in text
    sealed(path, config_yaml=text.replace(old, new).encode())
    with pytest.raises((DataError, ConfigError), match=word):
        load_bundle(path)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(saved, wrong):
    path, bundle, _ = saved
    with torch.no_grad():
        next(bundle.segmenter.parameters()).view(-1)[3] = wrong
    save_bundle(bundle, path, card="# card", overwrite=True)
    with pytest.raises(DataError, match=r"finite number, got 1 tensors with other values, first segmenter\."):
        load_bundle(path)


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


def test_nothing_said_of_licence_leaves_the_manifest_as_it_always_was(saved):
    path, _, _ = saved
    manifest = json.loads((path / "manifest.json").read_text())
    assert list(manifest) == ["format", "files", "versions", "training", "calibration", "sha256"]
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    assert manifest["sha256"] == hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    assert load_bundle(path).about is None
    assert read_summary(path).about is None


def test_licence_and_citation_travel_and_leave_the_weights_alone(saved, tmp_path):
    path, bundle, sha = saved
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    store_about(path, ABOUT, card="# Another card")
    after = {p.name: p.read_bytes() for p in path.iterdir()}
    assert [name for name in before if before[name] != after[name]] == ["card.md", "manifest.json"]
    loaded = load_bundle(path)
    assert (loaded.about, loaded.sha256, loaded.training) == (ABOUT, sha, bundle.training)
    assert (read_summary(path).about, read_summary(path).sha256, read_summary(path).kind) == (ABOUT, sha, "detector")
    store_calibration(path, {"default": "dice"})
    assert load_bundle(path).about == ABOUT
    save_bundle(replace(loaded, training={}), tmp_path / "again", card=model_card(replace(loaded, training={})))
    assert load_bundle(tmp_path / "again").about == ABOUT
    card = (tmp_path / "again" / "card.md").read_text()
    for said in ("Licence of the weights: CC-BY-4.0", "Authors: A, B", "Cite: A and B, 2025.", "data: Ten brains."):
        assert said in card


def test_a_changed_licence_is_refused(saved):
    path, _, _ = saved
    store_about(path, ABOUT, card="# card")
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace("CC-BY-4.0", "CC0-1.0"))
    with pytest.raises(DataError, match="manifest"):
        load_bundle(path)
    manifest = json.loads(text)
    del manifest["about"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="manifest"):
        load_bundle(path)


@pytest.mark.parametrize(
    ("key", "value", "error"), [("extra", 1, DataError), ("about", {"licence": "CC0-1.0"}, ConfigError)]
)
def test_what_is_not_known_is_refused_even_if_sealed(saved, key, value, error):
    path, _, _ = saved
    manifest = json.loads((path / "manifest.json").read_text()) | {key: value}
    content = {k: v for k, v in manifest.items() if k != "sha256"}
    manifest["sha256"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(error):
        load_bundle(path)


def test_a_zip_is_described_before_it_is_packed(saved, tmp_path):
    path, _, _ = saved
    shutil.make_archive(str(tmp_path / "packed"), "zip", path)
    with pytest.raises(DataError, match="in its folder"):
        store_about(tmp_path / "packed.zip", ABOUT, card="# card")
