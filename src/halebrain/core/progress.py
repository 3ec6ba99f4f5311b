"""Progress bars on standard error, with time left; plain and silent where nobody watches a terminal."""

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


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

    def __init__(self, description: str, total: int | None, *, completed: int = 0) -> None:
        self.description, self.total, self.completed = description, total, completed
        self._first = completed
        self._started = self._last_line = time.monotonic()
        self._rich: object | None = None

    def __enter__(self) -> "ProgressBar":
        if SETTINGS.enabled and sys.stderr.isatty():
            self._rich = _RichBar(self.description, self.total, self.completed)
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(self._rich, _RichBar):
            self._rich.close()
        elif SETTINGS.enabled and time.monotonic() - self._started > 2:
            self._print_line("")

    def advance(self, message: str = "", steps: int = 1) -> None:
        """Count `steps` as done and show `message` beside the bar."""
        self.completed += steps
        if isinstance(self._rich, _RichBar):
            self._rich.update(self.completed, message)
        elif SETTINGS.enabled and time.monotonic() - self._last_line > SETTINGS.plain_every_s:
            self._print_line(message)

    def _print_line(self, message: str) -> None:
        self._last_line = time.monotonic()
        elapsed = self._last_line - self._started
        done = self.completed - self._first
        left = ""
        if self.total and done and self.completed < self.total:
            left = f", {elapsed / done * (self.total - self.completed):.0f} s left"
        of_total = f"/{self.total}" if self.total else ""
        line = f"{self.description}: {self.completed}{of_total} in {elapsed:.0f} s{left} {message}"
        sys.stderr.write(line.rstrip() + "\n")
        sys.stderr.flush()


class _RichBar:
    def __init__(self, description: str, total: int | None, completed: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[message]}"),
        )
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._progress.start()
        self._task = self._progress.add_task(description, total=total, completed=completed, message="")

    def update(self, completed: int, message: str) -> None:
        self._progress.update(self._task, completed=completed, message=message)

    def close(self) -> None:
        self._progress.stop()


def _length(items: Iterable[object]) -> int | None:
    try:
        return len(items)  # type: ignore[arg-type]
    except TypeError:
        return None
