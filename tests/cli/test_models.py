"""`halebrain models`: names for models, and their way in and out."""

import json
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from halebrain.cli.main import main
from halebrain.core.errors import CannotWriteError, DataError, MissingInputError, UsageError
from halebrain.models import store
from halebrain.models.bundle import Bundle, ModelConfig, build_networks, load_bundle, save_bundle
from halebrain.models.store import export_model, find_model, import_model, stored_models

AE = {"name": "ae", "settings": {"channels": [8, 8], "latent": 4, "norm_groups": 4}}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HALEBRAIN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(store, "bundled_folder", lambda: tmp_path / "bundled")
    return tmp_path / "home"


def make_bundle(path: Path, *, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = ModelConfig.model_validate({"kind": "reconstructor", "reconstructor": AE})
    reconstructor, segmenter = build_networks(config)
    save_bundle(Bundle(config, reconstructor, segmenter, {}, {}, "", None), path, card="# A card\n")
    return path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["halebrain", "models", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_an_imported_model_is_found_by_its_name_and_is_the_same(home, tmp_path):
    bundle = make_bundle(tmp_path / "mine")
    stored = import_model(bundle)
    assert (stored.name, stored.origin) == ("mine", "imported")
    assert find_model(Path("mine")) == stored.path == home / "models" / "mine.zip"
    assert load_bundle(find_model(Path("mine"))).sha256 == load_bundle(bundle).sha256
    assert find_model(bundle) == bundle, "a path goes before a name"
    assert import_model(make_bundle(tmp_path / "run" / "model")).name == "run", "a run's model is known by its run"


def test_a_bundled_model_is_hidden_by_an_imported_one(home, tmp_path):
    (tmp_path / "bundled").mkdir()
    export_model(make_bundle(tmp_path / "a"), tmp_path / "bundled" / "general.zip")
    assert [(m.name, m.origin) for m in stored_models()] == [("general", "bundled")]
    import_model(make_bundle(tmp_path / "b", seed=1), "general")
    assert [(m.name, m.origin) for m in stored_models()] == [("general", "imported")]


def test_a_name_stands_for_one_model(home, tmp_path):
    bundle, other = make_bundle(tmp_path / "a"), make_bundle(tmp_path / "b", seed=1)
    import_model(bundle, "x")
    import_model(bundle, "x")  # the same again is no conflict
    with pytest.raises(CannotWriteError, match="stands for one model"):
        import_model(other, "x")
    import_model(other, "x", overwrite=True)
    assert load_bundle(find_model(Path("x"))).sha256 == load_bundle(other).sha256
    with pytest.raises(UsageError):
        import_model(other, "../x")


def test_unknown_names_offer_the_nearest(home, tmp_path):
    with pytest.raises(MissingInputError, match="no model has a name here yet"):
        find_model(Path("general"))
    import_model(make_bundle(tmp_path / "general"))
    with pytest.raises(MissingInputError, match="did you mean 'general'"):
        find_model(Path("genral"))


def test_a_damaged_bundle_is_not_taken(home, tmp_path):
    bundle = make_bundle(tmp_path / "a")
    (bundle / "card.md").write_text("# Another card\n", encoding="utf-8")
    for attempt in (import_model, lambda path: export_model(path, tmp_path / "a.zip")):
        with pytest.raises(DataError, match="sha256"):
            attempt(bundle)
    assert not list(home.rglob("*.zip"))
    assert not (tmp_path / "a.zip").exists()


def test_an_export_is_the_same_each_time(tmp_path):
    bundle = make_bundle(tmp_path / "a")
    for name in ("one.zip", "two.zip"):
        export_model(bundle, tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with pytest.raises(CannotWriteError):
        export_model(bundle, tmp_path / "one.zip")
    with pytest.raises(DataError, match=r"NAME\.zip"):
        export_model(bundle, tmp_path / "one.tar")
    assert sorted(zipfile.ZipFile(tmp_path / "one.zip").namelist()) == sorted(p.name for p in bundle.iterdir())


def test_the_commands(home, tmp_path, monkeypatch, capsys):
    bundle = make_bundle(tmp_path / "mine")
    assert run(monkeypatch, "list") == 0
    assert run(monkeypatch, "import", bundle) == 0
    capsys.readouterr()
    assert run(monkeypatch, "list", "--json") == 0
    assert [m["name"] for m in json.loads(capsys.readouterr().out)] == ["mine"]
    assert run(monkeypatch, "info", "mine") == 0
    said = capsys.readouterr().out
    assert "# A card" in said
    assert "Thresholds: none yet" in said
    assert run(monkeypatch, "info", "mine", "--json") == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == load_bundle(bundle).sha256
    assert run(monkeypatch, "verify", "mine") == 0
    assert run(monkeypatch, "export", "mine", "-o", tmp_path / "out.zip") == 0
    assert run(monkeypatch, "verify", tmp_path / "out.zip") == 0
    raw = bytearray((home / "models" / "mine.zip").read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    (home / "models" / "mine.zip").write_bytes(raw)
    assert run(monkeypatch, "verify", "mine") == DataError.exit_code
