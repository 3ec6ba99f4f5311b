"""Progress bars on standard error, with time left (plain lines, or none, if stderr is not a terminal); timed steps."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

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
        self._terminal: Progress | None = None

    def __enter__(self) -> "ProgressBar":
        if SETTINGS.enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = ("{task.description}", BarColumn(), "{task.fields[done]}", TimeElapsedColumn(), "left")
            left = TextColumn("{task.fields[left]}", style="progress.remaining")
            message = TextColumn("{task.fields[message]}", markup=False)
            self._terminal = Progress(*columns, left, message, console=Console(stderr=True))
            self._terminal.start()
            self._terminal.add_task(self.description, total=self.total, done="", left="", message="")
            self._show("")
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal is not None:
            self._terminal.stop()
        elif SETTINGS.enabled and time.monotonic() - self._started > _WORTH_A_LINE_S:
            self._print_line("")

    def advance(self, message: str = "", steps: float = 1) -> None:
        """Count `steps` as done and show `message` beside the bar."""
        self.reach(self.completed + steps, message)

    def reach(self, completed: float, message: str = "") -> None:
        """Count as many steps as done, part of one too, and show `message` beside the bar."""
        self.completed = completed
        if self._terminal is not None:
            self._show(message)
        elif SETTINGS.enabled and time.monotonic() - self._last_line > SETTINGS.plain_every_s:
            self._print_line(message)

    def _show(self, message: str) -> None:
        if self._terminal is not None:
            (task,) = self._terminal.task_ids
            left = _Countdown(self._left_s())
            self._terminal.update(task, completed=self.completed, done=self._done(), left=left, message=message)

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


class _Countdown:
    """The time left as text, counted down from an estimate; rich's own column forgets the pace after 30 s."""

    def __init__(self, left_s: float | None) -> None:
        self._end = None if left_s is None else time.monotonic() + left_s

    def __str__(self) -> str:
        if self._end is None:
            return "-:--:--"
        return str(timedelta(seconds=math.ceil(max(0.0, self._end - time.monotonic()))))


def _length(items: Iterable[object]) -> int | None:
    try:
        return len(items)  # type: ignore[arg-type]
    except TypeError:
        return None


@dataclass
class Stopwatch:
    """Adds up the seconds of named steps; `begin` is called with the name of each step when it begins."""

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
