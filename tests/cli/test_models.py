"""`halebrain models`: names for models, and their way in and out."""

import json
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from halebrain.cli.main import main
from halebrain.core.errors import (
    CannotWriteError,
    ConfigError,
    DataError,
    MissingInputError,
    UnavailableError,
    UsageError,
)
from halebrain.models import store
from halebrain.models.bundle import Bundle, ModelConfig, build_networks, load_bundle, save_bundle
from halebrain.models.bundle_files import store_calibration
from halebrain.models.store import export_model, find_model, import_model, stored_models
from halebrain.thresholds.calibration import Calibration, Threshold

AE = {"name": "ae", "settings": {"channels": [8, 8], "latent": 4, "norm_groups": 4}}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HALEBRAIN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(store, "bundled_folder", lambda: tmp_path / "bundled")
    return tmp_path / "home"


def make_bundle(path: Path, *, seed: int = 0, training: dict | None = None) -> Path:
    torch.manual_seed(seed)
    config = ModelConfig.model_validate({"kind": "reconstructor", "reconstructor": AE})
    reconstructor, segmenter = build_networks(config)
    save_bundle(Bundle(config, reconstructor, segmenter, training or {}, {}, "", None), path, card="# A card\n")
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


def test_another_calibration_is_another_model_and_is_not_replaced(home, tmp_path):
    mine = make_bundle(tmp_path / "mine")
    import_model(mine)
    import_model(mine)
    point = {"value": 0.3, "method": "by hand", "achieved": 0.0, "split": "val", "n_scans": 1, "modalities": ["T1w"]}
    point |= {"manifest_sha256": "f" * 64}
    calibrated = Calibration(default="ml:1", thresholds={"ml:1": Threshold(**point)}, subjects=())
    store_calibration(mine, calibrated.model_dump(mode="json"))
    with pytest.raises(CannotWriteError, match="a model name must be unique, got mine"):
        import_model(mine)
    assert load_bundle(find_model(Path("mine"))).calibration == {}
    import_model(mine, overwrite=True)
    assert load_bundle(find_model(Path("mine"))).calibration["default"] == "ml:1"


def test_a_folder_is_known_by_its_whole_name(home, tmp_path):
    bundle = make_bundle(tmp_path / "general.site2")
    assert load_bundle(bundle).name == "general.site2"
    assert import_model(bundle).name == "general.site2"
    assert load_bundle(find_model(Path("general.site2"))).name == "general.site2"


def test_a_bundled_model_is_hidden_by_an_imported_one(home, tmp_path):
    (tmp_path / "bundled").mkdir()
    export_model(make_bundle(tmp_path / "a"), tmp_path / "bundled" / "general.zip")
    assert [(m.name, m.origin) for m in stored_models()] == [("general", "bundled")]
    assert find_model() == tmp_path / "bundled" / "general.zip"
    import_model(make_bundle(tmp_path / "b", seed=1), "general")
    assert [(m.name, m.origin) for m in stored_models()] == [("general", "imported")]
    assert find_model() == find_model("general") == home / "models" / "general.zip"


def test_a_path_goes_before_a_name_but_never_stands_for_the_default(home, tmp_path, monkeypatch):
    (tmp_path / "bundled").mkdir()
    export_model(make_bundle(tmp_path / "a"), tmp_path / "bundled" / "general.zip")
    monkeypatch.chdir(tmp_path)
    make_bundle(tmp_path / "general", seed=1)
    assert find_model("general") == Path("general")
    assert find_model() == tmp_path / "bundled" / "general.zip"


def test_without_weights_the_default_model_says_what_would_bring_it(home):
    with pytest.raises(UnavailableError, match="import BUNDLE --name general") as caught:
        find_model()
    assert caught.value.exit_code == 69


def test_a_name_stands_for_one_model(home, tmp_path):
    bundle, other = make_bundle(tmp_path / "a"), make_bundle(tmp_path / "b", seed=1)
    import_model(bundle, "x")
    import_model(bundle, "x")  # the same again is no conflict
    with pytest.raises(CannotWriteError, match="must be unique"):
        import_model(other, "x")
    import_model(other, "x", overwrite=True)
    assert load_bundle(find_model(Path("x"))).sha256 == load_bundle(other).sha256
    with pytest.raises(UsageError):
        import_model(other, "../x")


def test_unknown_names_offer_the_nearest(home, tmp_path):
    with pytest.raises(MissingInputError, match="no model is installed yet"):
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


THRESHOLD = {
    "value": 0.25,
    "method": "best pooled Dice",
    "split": "val",
    "manifest_sha256": "0" * 64,
    "n_scans": 3,
    "achieved": 0.5,
}
CALIBRATION = {
    "default": "dice",
    "thresholds": {"dice": THRESHOLD},
    "subjects": ["a"],
    "modalities": {"FLAIR": {"dice": THRESHOLD}},
}
SAID = ("--licence", "CC-BY-4.0", "--citation", "A, 2025.", "--author", "A", "--author", "B", "--data", "Ten brains.")


def test_the_commands(home, tmp_path, monkeypatch, capsys):
    bundle = make_bundle(tmp_path / "mine")
    assert run(monkeypatch, "list") == 0
    assert "halebrain models import" in capsys.readouterr().err
    assert run(monkeypatch, "import", bundle) == 0
    capsys.readouterr()
    assert run(monkeypatch, "info", "mine") == 0
    said = capsys.readouterr().out
    for words in ("# A card", "Thresholds: none yet", "Licence and citation: not stated", "- Size: "):
        assert words in said
    assert run(monkeypatch, "info", "mine", "--json") == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == load_bundle(bundle).sha256
    assert run(monkeypatch, "verify", "mine") == 0
    assert run(monkeypatch, "export", "mine", "-o", tmp_path / "out.zip") == 0
    assert (tmp_path / "out.zip").read_bytes() == (home / "models" / "mine.zip").read_bytes()
    assert run(monkeypatch, "verify", tmp_path / "out.zip") == 0
    damage(home / "models" / "mine.zip")
    assert run(monkeypatch, "verify", "mine") == DataError.exit_code


def damage(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(bytes(raw))


def test_the_list_says_what_each_model_is(home, tmp_path, monkeypatch, capsys):
    bundle = make_bundle(tmp_path / "a", training={"stage1": {"modalities": ["T2w", "FLAIR"]}})
    (tmp_path / "bundled").mkdir()
    export_model(bundle, tmp_path / "bundled" / "general.zip")
    import_model(bundle, "other")
    damage(home / "models" / "other.zip")
    assert run(monkeypatch, "list", "--json") == 0
    general, other = json.loads(capsys.readouterr().out)
    assert (general["name"], general["default"], general["origin"]) == ("general", True, "bundled")
    assert (general["kind"], general["modalities"]) == ("reconstructor", ["FLAIR", "T2w"])
    assert general["sha256"] == load_bundle(bundle).sha256
    assert general["bytes"] == (tmp_path / "bundled" / "general.zip").stat().st_size
    assert (other["default"], other["kind"], other["sha256"]) == (False, None, None)
    assert other["error"]
    assert run(monkeypatch, "list") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("general *\tbundled\t")
    assert "reconstructor\tFLAIR,T2w" in first
    assert "damaged: " in second


def test_every_named_model_is_verified_the_bundled_ones_too(home, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "verify") == UnavailableError.exit_code
    bundle = make_bundle(tmp_path / "a")
    (tmp_path / "bundled").mkdir()
    export_model(bundle, tmp_path / "bundled" / "general.zip")
    import_model(bundle, "other")
    capsys.readouterr()
    assert run(monkeypatch, "verify") == 0
    assert capsys.readouterr().out.count(f"whole, {load_bundle(bundle).sha256}") == 2
    damage(tmp_path / "bundled" / "general.zip")
    assert run(monkeypatch, "verify") == DataError.exit_code
    said = capsys.readouterr()
    assert str(home / "models" / "other.zip") in said.out
    assert "damaged ones: general" in said.err


def test_licence_citation_and_thresholds_are_told(home, tmp_path, monkeypatch, capsys):
    bundle = make_bundle(tmp_path / "a")
    sha = load_bundle(bundle).sha256
    assert run(monkeypatch, "describe", bundle, *SAID, "--figure", "Dice 0.5", "--limit", "T1w=misses most") == 0
    assert load_bundle(bundle).sha256 == sha
    store_calibration(bundle, CALIBRATION)
    (tmp_path / "bundled").mkdir()
    export_model(bundle, tmp_path / "bundled" / "general.zip")
    capsys.readouterr()
    assert run(monkeypatch, "info") == 0
    said = capsys.readouterr().out
    for words in (
        "CC-BY-4.0",
        "Authors: A, B",
        "Cite: A, 2025.",
        "Training data: Ten brains.",
        "Limits, T1w: misses most",
        sha,
    ):
        assert words in said
    assert "- Default threshold: dice" in said
    assert "- Threshold dice: 0.2500, best pooled Dice; 3 scans, split val" in said
    assert "- Threshold dice for FLAIR: 0.2500" in said
    assert run(monkeypatch, "info", "general", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["about"]["authors"] == ["A", "B"]
    assert found["about"]["limits"] == {"T1w": "misses most"}
    assert found["calibration"] == CALIBRATION
    assert run(monkeypatch, "describe", bundle, *SAID[:1], "", *SAID[2:]) == ConfigError.exit_code
    assert run(monkeypatch, "describe", bundle, *SAID, "--limit", "T1w") == UsageError.exit_code
    # Scans are flagged by the contrast, whatever the word for it; none of two limits is lost.
    assert run(monkeypatch, "describe", bundle, *SAID, "--limit", "t1=misses most", "--limit", "flair=no slabs") == 0
    assert load_bundle(bundle).limits == {"T1w": "misses most", "FLAIR": "no slabs"}
    twice = ("--limit", "T1w=misses most", "--limit", "T1w=no slabs")
    assert run(monkeypatch, "describe", bundle, *SAID, *twice) == UsageError.exit_code


def test_the_default_model_goes_out_and_comes_in_again(home, tmp_path, monkeypatch):
    (tmp_path / "bundled").mkdir()
    export_model(make_bundle(tmp_path / "a"), tmp_path / "bundled" / "general.zip")
    assert run(monkeypatch, "export", "general", "-o", tmp_path / "x.zip") == 0
    assert (tmp_path / "x.zip").read_bytes() == (tmp_path / "bundled" / "general.zip").read_bytes()
    assert run(monkeypatch, "import", tmp_path / "x.zip") == 0
    assert load_bundle(find_model("x")).sha256 == load_bundle(find_model()).sha256
    damage(tmp_path / "x.zip")
    assert run(monkeypatch, "import", tmp_path / "x.zip", "--name", "y") == DataError.exit_code
    assert [m.name for m in stored_models()] == ["general", "x"]


def test_half_a_model_is_half_as_large_rounded_and_without_thresholds(home, tmp_path, monkeypatch, capsys):
    source = make_bundle(tmp_path / "whole")
    assert run(monkeypatch, "describe", source, *SAID, "--figure", "Dice 0.5", "--limit", "T1w=misses most") == 0
    store_calibration(source, {"default": "fixed"})
    capsys.readouterr()
    assert run(monkeypatch, "halve", str(source), "-o", str(tmp_path / "half")) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == str(tmp_path / "half")
    assert "calibrate" in captured.err
    whole, half = load_bundle(source), load_bundle(tmp_path / "half")
    assert half.calibration == {}
    assert half.about == whole.about.model_copy(update={"figures": ()})
    assert "Dice 0.5" not in (tmp_path / "half" / "card.md").read_text()
    assert half.sha256 != whole.sha256
    sizes = [(path / "model.safetensors").stat().st_size for path in (source, tmp_path / "half")]
    assert sizes[1] < 0.6 * sizes[0]
    for key, weight in whole.reconstructor.state_dict().items():
        rounded = half.reconstructor.state_dict()[key]
        assert rounded.dtype == weight.dtype
        assert torch.equal(rounded, weight.half().to(weight.dtype))


def test_a_weight_beyond_16_bits_is_refused(home, tmp_path, monkeypatch, capsys):
    source = make_bundle(tmp_path / "whole")
    bundle = load_bundle(source)
    next(bundle.reconstructor.parameters()).data.fill_(1e6)
    save_bundle(bundle, tmp_path / "wide", card="# A card\n")
    assert run(monkeypatch, "halve", str(tmp_path / "wide"), "-o", str(tmp_path / "half")) == 65
    assert "16 bits" in capsys.readouterr().err
    assert not (tmp_path / "half").exists()


def test_the_model_for_the_rest_is_one_of_those_that_are_joined(command, tmp_path):
    for extra in ((), ("--by-contrast",)):
        rest = "a" if not extra else "c"
        code, said = command("models", "join", "a", "b", "-o", tmp_path / "joined", "--rest", rest, *extra)
        assert code == 2
        assert "--rest must be one of the models" in said.err
