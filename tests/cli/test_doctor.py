"""`halebrain doctor`."""

import json
import sys

import pytest

from halebrain.cli.doctor import examine
from halebrain.cli.main import main
from halebrain.preprocessing.brain import synthstrip


def test_what_is_missing_says_what_would_bring_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HALEBRAIN_HOME", str(tmp_path / "new" / "home"))
    monkeypatch.delenv(synthstrip.WEIGHTS_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = examine()
    assert synthstrip.WEIGHTS_VARIABLE in found["brain extraction"]["synthstrip"]
    assert "pip install hd-bet" in found["brain extraction"]["hdbet"]
    assert found["extras"]["dcm2niix"].startswith("none")
    assert "writable" in found["home"]["folder"]
    assert not (tmp_path / "new").exists(), "nothing is made"
    weights = tmp_path / "synthstrip.1.pt"
    weights.write_bytes(b"weights")
    monkeypatch.setenv(synthstrip.WEIGHTS_VARIABLE, str(weights))
    assert str(weights) in examine()["brain extraction"]["synthstrip"]


def test_the_model_that_needs_no_name_is_told(bundled):
    assert examine()["home"]["model without --model"] == "general (bundled)"
    assert examine()["home"]["models by name"].startswith("general (bundled, ")
    bundled.unlink()
    assert "halebrain models import" in examine()["home"]["model without --model"]


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_says_it_all(monkeypatch, capsys, as_json):
    monkeypatch.setattr(sys, "argv", ["halebrain", "doctor", *(["--json"] if as_json else [])])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    said = capsys.readouterr().out
    names = json.loads(said) if as_json else said
    for section in ("versions", "machine", "brain extraction", "extras", "home"):
        assert section in names
    assert "missing" not in said
