"""What the option parser refuses, of every command: one line with the word received and what to do, and exit code 2."""

import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
import typer
from tools.command_line import read_commands

from halebrain.cli.main import app
from halebrain.cli.options import from_settings
from halebrain.cli.usage_errors import OneLineGroup
from halebrain.core.errors import UsageError
from halebrain.workflows.settings import Option

COMMANDS = {command.name: command for command in read_commands()}
TYPED = [name for name, command in COMMANDS.items() if not command.is_group]
GROUPS = [name for name, command in COMMANDS.items() if command.is_group]


@pytest.fixture(scope="module")
def refused():
    """Parse a command line; return what it is refused with."""
    program = typer.main.get_command(app)

    def call(*words):
        with pytest.raises(UsageError) as caught:
            program(list(words), prog_name="halebrain")
        assert caught.value.received
        assert caught.value.remedy
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return call


def words_of(command, *without):
    """Return a call with what must be given, except for `without`."""
    words = command.name.split()[1:]
    for parameter in command.parameters:
        if parameter.required and parameter not in without:
            value = parameter.choices[0] if parameter.choices else "1"
            words += [parameter.flags[0], value] if parameter.flags else [value]
    return words


@pytest.mark.parametrize("name", TYPED)
def test_an_unknown_option_offers_the_nearest_one(refused, name):
    command = COMMANDS[name]
    said = refused(*words_of(command), "--zzzzzzzz")
    assert said == f"{name} has no such option, got --zzzzzzzz; see {name} --help"
    for flag in (max(parameter.flags, key=len) for parameter in command.options):
        mistyped = f"{flag[:-1]}zz"
        offered = refused(*words_of(command), mistyped).removeprefix(f"{name} has no such option, got {mistyped}; ")
        assert offered.removeprefix("did you mean ").removesuffix("?") in [f for p in command.options for f in p.flags]


@pytest.mark.parametrize("name", TYPED)
def test_what_must_be_given_is_named_with_the_shortest_call(refused, name):
    command = COMMANDS[name]
    for parameter in command.parameters:
        if parameter.required:
            said = refused(*words_of(command, parameter))
            # Of several arguments it is the last that is not there.
            wanted = max(parameter.flags, key=len) if parameter.flags else command.arguments[-1].metavar
            assert said.startswith(f"{name} needs {wanted}, got none; the shortest call is {name} ")


@pytest.mark.parametrize("name", TYPED)
def test_a_wrong_value_is_named_with_what_is_taken(refused, name):
    command = COMMANDS[name]
    for parameter in command.parameters:
        called = max(parameter.flags, key=len) if parameter.flags else parameter.metavar
        ahead = words_of(command, parameter)
        wrong = ["zzzzzzzz"] if parameter.choices or parameter.kind in (int, float) else []
        if parameter.minimum is not None:
            wrong.append(f"{parameter.minimum - 1:g}")
        if parameter.maximum is not None:
            wrong.append(f"{parameter.maximum + 1:g}")
        for value in wrong:
            words = [parameter.flags[0], value] if parameter.flags else [value]
            said = refused(*ahead, *words)
            assert said.startswith(f"{called} of {name} takes ")
            assert f", got '{value}'; " in said
            assert all(word in said for word in parameter.choices)
        if parameter.flags and parameter.kind is not bool:
            said = refused(*ahead, parameter.flags[0])
            assert said == f"{parameter.flags[0]} of {name} takes a value, got none; see {name} --help"
        elif parameter.flags:
            said = refused(*ahead, f"{called}=1")
            assert said == f"{called} of {name} takes no value, got one; see {name} --help"


@pytest.mark.parametrize("name", TYPED)
def test_a_word_too_many_is_named(refused, name):
    command = COMMANDS[name]
    if any(parameter.repeatable for parameter in command.arguments):
        pytest.skip("it takes any number of words")
    words = [*words_of(command), *("1" for parameter in command.arguments if not parameter.required)]
    places = ", ".join(parameter.metavar for parameter in command.arguments) or "options only"
    assert refused(*words, "too", "many") == f"{name} takes {places}, got 'too many' as well; see {name} --help"


@pytest.mark.parametrize("name", GROUPS)
def test_a_mistyped_command_offers_the_nearest_one(refused, name):
    below = [other.removeprefix(f"{name} ") for other in COMMANDS if other.rpartition(" ")[0] == name]
    assert below
    for command in below:
        said = refused(*name.split()[1:], f"{command}z")
        assert said == f"{name} has no such command, got '{command}z'; did you mean '{command}'?"
    assert refused(*name.split()[1:], "zzzzzzzz").endswith(f"; known: {', '.join(sorted(below))}")
    said = refused(*name.split()[1:], "--zzzzzzzz")
    assert said.endswith(f"; options follow the name of a command; see {name} --help")


def test_the_module_is_the_program_and_has_its_name():
    line = [sys.executable, "-m", "halebrain", "detect", "--outptu", "out"]
    said = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == "halebrain: halebrain detect has no such option, got --outptu; did you mean --output?\n"


def test_the_program_prints_one_line_and_ends_with_2(command):
    code, said = command("detect", "-i", "scan.nii.gz", "--outptu", "out")
    assert (code, said.out) == (2, "")
    assert said.err == "halebrain: halebrain detect has no such option, got --outptu; did you mean --output?\n"


def test_a_call_without_words_still_prints_the_help(command):
    code, said = command("models")
    assert code == 2
    assert "second-look" in said.out + said.err


@dataclass(frozen=True)
class Shares:
    """Some settings."""

    share: Annotated[float, Option("A share.", minimum=0, maximum=1)] = 0.5
    most: Annotated[float, Option("Not too many.", maximum=9)] = 3
    kind: Annotated[Literal["odd", "even", "prime"] | None, Option("Which kind.")] = None
    counts: Annotated[tuple[int, ...], Option("Counts.", ("--count",))] = ()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--share", "1.5"), "--share of app run takes a number from 0 to 1, got '1.5'; see app run --help"),
        (("--most", "10"), "--most of app run takes a number of at most 9, got '10'; see app run --help"),
        (
            ("--kind", "odds"),
            "--kind of app run takes odd, even or prime, got 'odds'; did you mean 'odd'?",
        ),
        (("--count", "3", "--count", "x"), "--count of app run takes a whole number, got 'x'; see app run --help"),
    ],
)
def test_ranges_and_lists_are_said_in_words(words, said):
    small = typer.Typer(cls=OneLineGroup)

    @small.command()
    @from_settings()
    def run(shares: Shares) -> None:
        raise NotImplementedError

    @small.callback()
    def root(): ...

    with pytest.raises(UsageError) as caught:
        typer.main.get_command(small)(["run", *words], prog_name="app")
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("bids in out group --participant-label 01", "--participant-label has no effect at the group level"),
        ("bids in out group --threshold 0.9", "--threshold has no effect at the group level"),
        ("evaluate --manifest m.tsv -o out --fusion mean", "--fusion needs --exams"),
        ("calibrate model --manifest m.tsv --fusion mean", "--fusion needs --exams"),
        ("folds --manifest m.tsv --output=", "--output takes a path, got an empty word"),
    ],
)
def test_what_would_have_no_effect_is_refused(command, words, said):
    code, printed = command(*words.split())
    assert (code, said in printed.err) == (2, True), printed.err
