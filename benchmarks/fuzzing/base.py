"""What a kind of input is, which one a number means, and the command line in this process."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random


@dataclass(frozen=True)
class Attempt:
    """One damaged input.

    Args:
        about: What was damaged, in a few words.
        run: Gives it to HaleBrain; raises `WrongResultError` where what comes back cannot be right.
    """

    about: str
    run: Callable[[], object]


Make = Callable[[Random, Path], Attempt]


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Args:
        name: In the table.
        weight: Its share among the kinds that are drawn.
        make: Writes an input into an empty folder; the same generator of random numbers gives the same input.
    """

    name: str
    weight: int
    make: Make


class WrongResultError(AssertionError):
    """Something was accepted, and what came back cannot be right."""


KINDS: dict[str, Kind] = {}
SELDOM, EVERY = "detect", 500
"""The kind that is too slow to be drawn, and how often it comes instead."""


def kind(name: str, *, weight: int) -> Callable[[Make], Make]:
    """Register a kind of input."""

    def register(make: Make) -> Make:
        KINDS[name] = Kind(name, weight, make)
        return make

    return register


def kind_of(number: int, random: Random, only: tuple[str, ...] = ()) -> Kind:
    """Return the kind of input that a number means, drawn by weight.

    Args:
        number: Of the input, from 0.
        random: Of this input.
        only: Names of the kinds to draw from; empty = all.
    """
    if number % EVERY == EVERY - 1 and not only:
        return KINDS[SELDOM]
    drawn = [KINDS[name] for name in sorted(only or KINDS)]
    return random.choices(drawn, [one.weight or len(only) for one in drawn])[0]


def command(*arguments: object) -> None:
    """Run the command line in this process; what it refuses is raised."""
    from halebrain.cli.main import app

    app([str(one) for one in arguments], standalone_mode=False)


@contextlib.contextmanager
def variable(name: str, value: object) -> Iterator[None]:
    """Set a variable of the environment for as long as the block runs."""
    before = os.environ.get(name)
    os.environ[name] = str(value)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def check(holds: bool, words: str) -> None:
    """Raise where a result cannot be right."""
    if not holds:
        raise WrongResultError(words)
