"""`halebrain doctor`."""

import json
import re
import sys
import tempfile
from types import SimpleNamespace

import pytest
import torch

from halebrain.cli.main import main
from halebrain.preprocessing.brain import deepbet, synthstrip
from halebrain.workflows.doctor import examine


def test_what_is_missing_says_what_would_bring_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HALEBRAIN_HOME", str(tmp_path / "new" / "home"))
    monkeypatch.delenv(synthstrip.WEIGHTS_VARIABLE, raising=False)
    monkeypatch.delenv(deepbet.WEIGHTS_VARIABLE, raising=False)
    monkeypatch.setattr(deepbet, "DISTRIBUTION", "no-such-distribution")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = examine()
    assert synthstrip.WEIGHTS_VARIABLE in found["brain extraction"]["synthstrip"]
    assert "pip install hd-bet" in found["brain extraction"]["hdbet"]
    assert "pip install --no-deps deepbet" in found["brain extraction"]["deepbet"]
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


def test_room_on_disk_and_in_memory_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    found = examine()
    assert re.fullmatch(
        rf"{re.escape(str(tmp_path))} \(\d+ GB free; TMPDIR names another\)", found["home"]["temporary files"]
    )
    assert re.search(r"\d+ GB free", found["home"]["folder"])
    total, available = re.fullmatch(r"([\d.]+) GB(?:, ([\d.]+) GB available)?", found["machine"]["memory"]).groups()
    assert float(total) >= float(available or 0) > 0 or available is None
    assert found["machine"]["bf16"].startswith(("on the ", "not on the "))


@pytest.mark.parametrize("is_full", [False, True])
def test_the_memory_of_a_gpu_is_told(monkeypatch, is_full):
    def left(number):
        if is_full:
            raise RuntimeError("CUDA error: out of memory\nand how to debug it")
        return 20_000_000_000, 80_000_000_000

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "Giant")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(total_memory=80e9))
    monkeypatch.setattr(torch.cuda, "mem_get_info", left)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not is_full)
    machine = examine()["machine"]
    free = "not usable now: CUDA error: out of memory" if is_full else "20.0 GB free"
    assert machine["cuda"] == f"Giant (80.0 GB, {free})"
    assert machine["bf16"] == ("not on the GPU: training uses single precision" if is_full else "on the GPU")


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
    for line in ("memory", "cuda", "bf16", "folder", "temporary files"):
        assert line in names["machine"] | names["home"] if as_json else f"  {line} " in names
    assert "missing" not in said
