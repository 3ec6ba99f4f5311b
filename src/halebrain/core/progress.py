"""Progress bars on standard error, with time left (plain lines, or none, if stderr is not a terminal); timed steps."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from halebrain.core.terminal_bar import TerminalBar

T = TypeVar("T")
_WORTH_A_LINE_S = 2.0
"""Without a terminal, shorter tasks are not reported."""


@dataclass
class ProgressSettings:
    """Process-wide display settings, set once by the command line; they never touch a result."""

    enabled: bool = True
    plain_every_s: float = 20.0


SETTINGS = ProgressSettings()


def track(items: Iterable[T], *, description: str, total: int | None = None) -> Iterator[T]:
    """Yield `items`, showing a bar with the time left (a line every 20 s where stderr is no terminal)."""
    bar = ProgressBar(description, total if total is not None else _length(items))
    with bar:
        for item in items:
            yield item
            bar.advance()


class ProgressBar:
    """A bar that a loop advances by hand and may give a live message (a loss, a file name).

    Args:
        description: What is being done.
        total: Number of steps; `None` when unknown.
        completed: Steps already done before (after a resume).
    """

    def __init__(self, description: str, total: int | None, *, completed: float = 0) -> None:
        self.description, self.total, self.completed = description, total, completed
        self._first = completed
        self._started = self._last_line = time.monotonic()
        self._shown: TerminalBar | None = None

    def __enter__(self) -> "ProgressBar":
        if SETTINGS.enabled and sys.stderr.isatty():
            from halebrain.core.terminal_bar import TerminalBar

            self._shown = TerminalBar(self.description, self.total, self.completed)
            self._show("")
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown is not None:
            self._shown.close()
        elif SETTINGS.enabled and time.monotonic() - self._started > _WORTH_A_LINE_S:
            self._print_line("")

    def advance(self, message: str = "", steps: float = 1) -> None:
        """Count `steps` as done and show `message` beside the bar."""
        self.reach(self.completed + steps, message)

    def reach(self, completed: float, message: str = "") -> None:
        """Count as many steps as done, part of one too, and show `message` beside the bar."""
        self.completed = completed
        if self._shown is not None:
            self._show(message)
        elif SETTINGS.enabled and time.monotonic() - self._last_line > SETTINGS.plain_every_s:
            self._print_line(message)

    def _show(self, message: str) -> None:
        if self._shown is not None:
            self._shown.update(self.completed, message, done=self._done(), left_s=self._left_s())

    def _print_line(self, message: str) -> None:
        self._last_line = time.monotonic()
        left_s = self._left_s()
        left = "" if not left_s else f", {left_s:.0f} s left"
        elapsed = self._last_line - self._started
        line = f"{self.description}: {self._done()} in {elapsed:.0f} s{left} {message}"
        sys.stderr.write(line.rstrip() + "\n")
        sys.stderr.flush()

    def _done(self) -> str:
        """Return how far it is, for the reader: "3/12", "0.4/1"."""
        whole = self.completed == int(self.completed)
        done = f"{self.completed:.0f}" if whole else f"{self.completed:.1f}"
        return f"{done}/{self.total}" if self.total else done

    def _left_s(self) -> float | None:
        """Return the seconds that the rest takes at the pace so far; `None` where that is not known."""
        done = self.completed - self._first
        if not self.total or done <= 0:
            return None
        return (time.monotonic() - self._started) / done * max(0, self.total - self.completed)


def _length(items: Iterable[object]) -> int | None:
    try:
        return len(items)  # type: ignore[arg-type]
    except TypeError:
        return None


@dataclass
class Stopwatch:
    """Adds up the seconds of named steps.

    Args:
        seconds: Step → seconds so far.
        begin: Called with the name of each step when it begins.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    begin: Callable[[str], None] | None = None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        if self.begin is not None:
            self.begin(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
