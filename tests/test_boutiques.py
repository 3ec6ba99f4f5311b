"""The Boutiques descriptor: valid, and the command lines that are made of it are ours."""

import json
import shlex
from pathlib import Path

import pytest
import typer

from halebrain.cli.main import app

boutiques = pytest.importorskip("boutiques", reason="boutiques is not installed: pip install -e '.[dev]'")

DESCRIPTOR = Path(__file__).parents[1] / "boutiques.json"


@pytest.fixture
def descriptor():
    return json.loads(DESCRIPTOR.read_text(encoding="utf-8"))


def example_of(entry):
    """Return a value that an input of the descriptor takes."""
    if entry["type"] == "Flag":
        return True
    if entry["type"] == "Number":
        value = entry.get("minimum", 3)
    else:
        value = entry.get("value-choices", [f"a {entry['id']}"])[0]
    return [value, value] if entry.get("list") else value


def simulated(invocation, tmp_path, capsys):
    """Return the words that Boutiques would run."""
    given = tmp_path / "invocation.json"
    given.write_text(json.dumps(invocation))
    line = boutiques.execute("simulate", str(DESCRIPTOR), "-i", str(given)).stdout
    capsys.readouterr()
    return shlex.split(line)


def parsed(words):
    """Return what our command line makes of words."""
    assert words[:2] == ["halebrain", "bids"]
    command = typer.main.get_command(app).commands["bids"]
    with command.make_context("bids", words[2:]) as context:
        return context.params


def test_the_descriptor_is_valid(capsys):
    boutiques.validate(str(DESCRIPTOR))


def test_a_usual_call(tmp_path, capsys):
    call = {
        "bids_dir": "data",
        "out_dir": "out",
        "level": "participant",
        "participant_label": ["01", "02"],
        "workers": 4,
    }
    params = parsed(simulated(call, tmp_path, capsys))
    assert (params["bids_dir"], params["out_dir"], params["level"].value) == (Path("data"), Path("out"), "participant")
    assert params["participant_label"] == ["01", "02"]
    assert (params["workers"], params["seed"], params["overwrite"]) == (4, 0, False)


def test_every_input_reaches_the_command(descriptor, tmp_path, capsys):
    call = {entry["id"]: example_of(entry) for entry in descriptor["inputs"]}
    params = parsed(simulated(call, tmp_path, capsys))
    assert set(params) == set(call)
    for name, value in call.items():
        got = getattr(params[name], "value", params[name])
        assert (str(got) if isinstance(got, Path) else got) == value
