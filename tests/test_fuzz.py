"""The fuzz command on a few inputs: it runs, repeats itself, finds a fault where there is one, and none elsewhere."""

import json
import os
import sys
import warnings

import pytest

from fuzz import main, run_numbers
from fuzzing.base import EVERY, KINDS, Attempt, WrongResultError, kind_of
from fuzzing.judge import Judge
from halebrain.core.errors import DataError, HalebrainError


@pytest.fixture
def judged(monkeypatch):
    """Judge one attempt of ours."""

    def judge(run, **how):
        monkeypatch.setattr("fuzzing.judge.kind_of", lambda *_: type("K", (), {"name": "k", "make": make}))

        def make(random, folder):
            return Attempt("a", lambda: run(folder))

        (outcome,) = run_numbers([0], Judge(0, **how))
        return outcome

    return judge


def refuse(**parts):
    raise DataError(**{"rule": "a scan must be whole", "remedy": "copy it again"} | parts)


def chained():
    try:
        bytearray(1 << 50)
    except MemoryError as error:
        raise DataError("a scan must fit", remedy="cut it") from error


def wait(_):
    while True:
        pass


def leave(folder):
    (folder / ".part-x").mkdir()


def wrong(_):
    raise WrongResultError("two heads")


def undocumented(_):
    raise HalebrainError("something is wrong", remedy="think")


FAULTS = {
    "ValueError in": lambda _: int("x"),
    "noise: a word": lambda _: os.write(2, b"a word\n"),
    "noise: KEY: careful": lambda _: warnings.warn("careful", RuntimeWarning, stacklevel=2),
    "noise: KEY: a: unexpected": lambda _: sys.stderr.write("halebrain: a: unexpected KeyError: 1\n"),
    "UnicodeEncodeError in": lambda _: sys.stdout.write("\udcff"),
    "hang": wait,
    "memory": lambda _: chained(),
    "left behind: .part-x": leave,
    "wrong result: two heads": wrong,
    "message: no exit code": undocumented,
    "message: does not say what to do": lambda _: refuse(remedy=""),
    "message: longer": lambda _: refuse(rule="x" * 400, received="y" * 400, where="z" * 400),
    "SystemExit in": lambda _: sys.exit(3),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(judged, fault):
    outcome = judged(FAULTS[fault], seconds=0.2)
    assert outcome.fault.startswith(fault), outcome


def test_what_ends_as_promised_is_none(judged):
    assert judged(lambda _: sys.stdout.write("ä")).fault == ""
    assert judged(lambda _: sys.stderr.write("halebrain: warning: a: thick slices\n")).fault == ""
    refused = judged(lambda _: refuse(received=3, where="a"))
    assert (refused.fault, refused.rule) == ("", "a scan must be whole")


def test_a_number_is_the_same_input_whatever_else_is_asked(tmp_path):
    def contents(keep):
        return {
            path.relative_to(keep): path.read_bytes()
            for path in sorted(keep.rglob("*"))
            if path.is_file() and "out" not in path.parts
        }

    numbers = [3, 5, 12]
    first, again = (Judge(7, keep=tmp_path / name) for name in "ab")
    together = run_numbers(numbers, first)
    alone = [run_numbers([number], again)[0] for number in reversed(numbers)][::-1]
    assert [one.about for one in together] == [one.about for one in alone]
    assert contents(tmp_path / "a") == contents(tmp_path / "b") != {}


def test_whole_detections_come_now_and_then_and_every_kind_is_drawn():
    from random import Random

    drawn = [kind_of(number, Random(f"0:{number}")).name for number in range(2 * EVERY)]
    assert [n for n, name in enumerate(drawn) if name == "detect"] == [EVERY - 1, 2 * EVERY - 1]
    assert set(drawn) == set(KINDS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("bundle", 35),
        ("config", 45),
        ("dicom", 35),
        ("mask", 30),
        # The first one makes a whole detection.
        pytest.param("results", 5, marks=pytest.mark.slow),
    ],
)
def test_damaged_inputs_end_as_promised(kind, count):
    outcomes = run_numbers(range(count), Judge(0, only=(kind,)))
    assert [one for one in outcomes if one.fault] == []
    accepted = sum(not one.rule for one in outcomes)
    assert 0 < accepted < count or kind == "results"


def test_the_command_prints_a_table_and_fails_where_there_is_a_fault(capsys, monkeypatch):
    monkeypatch.setitem(
        KINDS, "mask", KINDS["mask"].__class__("mask", 1, lambda *_: Attempt("a", lambda: json.loads("{")))
    )
    assert main(["--only", "0", "--kinds", "mask"]) == 1
    printed = capsys.readouterr().out
    assert "JSONDecodeError in" in printed
    assert "--seed 0 --only 0" in printed
