"""Progress: a bar with the time left on a terminal, a line now and then elsewhere, silence where it is asked for."""

import io
import re
import sys

import pytest

from halebrain.core import progress
from halebrain.core.progress import ProgressBar, track


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass as the test says; what is told goes to the standard error of the test."""
    monkeypatch.setattr(progress, "SETTINGS", progress.ProgressSettings())
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


@pytest.fixture
def terminal(clock, monkeypatch):
    """Open a terminal of 100 columns that understands everything: in the test itself, or pytest would shut it again."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)

    def start():
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        return screen

    return start


def plain(screen):
    """Return what stands on a terminal at the end, without the marks that move and colour."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).replace("\r", "\n").rstrip().split("\n")[-1]


def test_lines_tell_what_is_done_and_what_is_left(clock, capsys):
    with ProgressBar("Detecting", 4) as bar:
        clock(30)
        bar.advance("sub-01")
        clock(30)
        bar.advance()
    assert capsys.readouterr().err.splitlines() == [
        "Detecting: 1/4 in 30 s, 90 s left sub-01",
        "Detecting: 2/4 in 60 s, 60 s left",
        "Detecting: 2/4 in 60 s, 60 s left",
    ]


def test_a_line_comes_every_20_seconds_at_most(clock, capsys):
    for _ in track(range(100), description="Reading"):
        clock(1)
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" in ")[0] for line in said] == [f"Reading: {n}/100" for n in (21, 42, 63, 84, 100)]
    assert said[0] == "Reading: 21/100 in 21 s, 79 s left"
    assert said[-1] == "Reading: 100/100 in 100 s"


def test_what_is_done_at_once_is_not_told(clock, capsys):
    assert list(track(iter("abc"), description="Reading")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_parts_of_a_step_count(clock, capsys):
    with ProgressBar("Detecting", 1) as bar:
        clock(25)
        bar.reach(0.25, "registration")
        clock(75)
        bar.reach(1)
    assert capsys.readouterr().err.splitlines()[:2] == [
        "Detecting: 0.2/1 in 25 s, 75 s left registration",
        "Detecting: 1/1 in 100 s",
    ]


def test_steps_of_an_earlier_run_say_nothing_of_the_pace(clock, capsys):
    with ProgressBar("Training", 1000, completed=900) as bar:
        clock(50)
        bar.advance("loss 0.1", steps=50)
    assert capsys.readouterr().err.splitlines()[0] == "Training: 950/1000 in 50 s, 50 s left loss 0.1"


def test_without_a_total_nothing_is_promised(clock, capsys):
    for _ in track((n for n in range(2)), description="Reading"):
        clock(30)
    assert capsys.readouterr().err.splitlines()[0] == "Reading: 1 in 30 s"


def test_switched_off_it_is_silent(clock, terminal):
    progress.SETTINGS.enabled = False
    screen = terminal()
    for _ in track(range(3), description="Reading"):
        clock(60)
    assert screen.getvalue() == ""


def test_a_terminal_gets_a_bar_with_the_time_left(clock, terminal):
    screen = terminal()
    with ProgressBar("Detecting", 2) as bar:
        clock(30)
        bar.reach(0.5, "sub-01 [b]: networks")
    shown = plain(screen)
    assert shown.startswith("Detecting ")
    assert " 0.5/2 " in shown
    assert re.search(r"left 0:01:(30|29) sub-01 \[b\]: networks$", shown)


def test_no_time_is_told_before_anything_is_done(clock, terminal):
    screen = terminal()
    with ProgressBar("Detecting", 2):
        clock(30)
    assert "0/2" in plain(screen)
    assert plain(screen).endswith("left -:--:--")


@pytest.mark.parametrize("how", ["bar", "loop"])
def test_an_error_inside_leaves_the_terminal_clean(clock, terminal, how):
    screen = terminal()

    def work():
        if how == "loop":
            for item in track(range(3), description="Reading"):
                raise ValueError(f"at {item}")
        with ProgressBar("Reading", 3):
            raise ValueError("at 0")

    with pytest.raises(ValueError, match="at 0"):
        work()
    assert screen.getvalue().count("\x1b[?25l") == screen.getvalue().count("\x1b[?25h") == 1, "the cursor is back"
    assert screen.getvalue().endswith("\n\x1b[?25h"), "what comes next stands on a line of its own"
    assert sys.stderr is screen, "what is written next goes there directly"
