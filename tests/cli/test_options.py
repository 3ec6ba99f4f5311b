from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from halebrain.cli.console import echo_message
from halebrain.cli.options import from_settings
from halebrain.core.device import find_device
from halebrain.core.errors import MissingInputError, UnavailableError, UsageError
from halebrain.core.messages import log_message
from halebrain.core.shipped_configs import find_config
from halebrain.workflows.settings import Option


@pytest.mark.parametrize("kind", ["reconstructor", "segmenter"])
@pytest.mark.parametrize("name", ["tiny", "demo", "paper"])
def test_a_shipped_name_is_found_even_where_a_folder_has_it(tmp_path, monkeypatch, kind, name):
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    found = find_config(Path(name), kind)
    assert found is not None
    assert found.name == f"{kind}_{name}.yaml"
    assert found.is_file()


def test_a_file_of_the_user_goes_before_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("demo").write_text("seed: 1\n")
    assert find_config(Path("demo"), "segmenter") == Path("demo")
    assert find_config(Path("mine.yaml"), "segmenter") == Path("mine.yaml")
    assert find_config(None, "segmenter") is None


def test_a_name_that_is_none_offers_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingInputError, match="did you mean 'paper'"):
        find_config(Path("papr"), "reconstructor")
    with pytest.raises(MissingInputError, match=r"known: cpu, .*gpu, .*paper, .*tiny"):
        find_config(Path("nonsense"), "matrix")


def test_devices_are_checked():
    assert find_device("cpu").type == "cpu"
    with pytest.raises(UsageError, match="'gpu'"):
        find_device("gpu")
    with pytest.raises(UnavailableError, match="cuda:99"):
        find_device("cuda:99")


@dataclass(frozen=True)
class Numbers:
    """Some settings."""

    count: Annotated[int, Option("How many.", minimum=1, former="--number")] = 3
    kind: Annotated[Literal["odd", "even"] | None, Option("Which.", ("--kind", "-k"))] = None
    names: Annotated[tuple[str, ...], Option("Names.", ("--name",))] = ()
    seed: Annotated[int, Option("Random seed.")] = 0
    notify: Callable[[str], None] = log_message


@pytest.fixture
def typed():
    """Run a command of these settings; return what it got, and the result."""
    got = []

    @from_settings(numbers={"seed": None})
    def run(place: Annotated[Path, Option("Where.", is_argument=True)], numbers: Numbers) -> None:
        got.append((place, numbers))

    app = typer.Typer()
    app.command()(run)

    def call(*arguments):
        result = CliRunner().invoke(app, list(arguments))
        return got[-1] if got else None, result

    return call


def test_each_field_of_settings_is_an_option(typed):
    (place, numbers), result = typed("here", "-k", "even", "--name", "a", "--name", "b", "--count", "5")
    assert result.exit_code == 0, result.output
    assert (place, numbers) == (Path("here"), Numbers(5, "even", ("a", "b"), 0, echo_message))
    assert type(numbers.kind) is str
    assert typed("here")[0][1] == Numbers(notify=echo_message)


@pytest.mark.parametrize("wrong", [("--kind", "prime"), ("--count", "0"), ("--seed", "1"), ("--notify", "x")])
def test_values_out_of_range_and_hidden_fields_are_refused(typed, wrong):
    got, result = typed("here", *wrong)
    assert (got, result.exit_code) == (None, 2)


def test_a_former_name_of_an_option_is_understood_and_said(typed):
    (_, numbers), result = typed("here", "--number", "7")
    assert numbers.count == 7
    assert "--number is now --count" in result.output
    _, result = typed("here", "--number", "7", "--count", "8")
    assert isinstance(result.exception, UsageError)
    assert "--number" not in typed("--help")[1].output


def test_two_options_of_one_name_are_a_mistake_of_the_command():
    def run(numbers: Numbers, count: Annotated[int, Option("How many.")] = 1) -> None:
        raise NotImplementedError

    with pytest.raises(AssertionError, match="count"):
        from_settings()(run)
