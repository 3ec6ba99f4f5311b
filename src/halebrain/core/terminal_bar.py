"""Progress bar on a terminal: work done, elapsed time, and time left."""

import math
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text


class TerminalBar:
    """A bar on standard error, shown from now until `close`.

    Args:
        description: What is being done.
        total: Number of steps; `None` when unknown.
        completed: Steps already done before.
    """

    def __init__(self, description: str, total: int | None, completed: float) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[done]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            _LeftColumn(),
            TextColumn("{task.fields[message]}", markup=False),
        )
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._progress.start()
        self._task = self._progress.add_task(
            description, total=total, completed=int(completed), message="", done="", left_s=None, told_at=0.0
        )

    def update(self, completed: float, message: str, *, done: str, left_s: float | None) -> None:
        """Show how far it is.

        Args:
            completed: Steps done.
            message: Live text beside the bar.
            done: The same for the reader ("3/12").
            left_s: Seconds that it still takes; `None` = not known yet.
        """
        now = self._progress.get_time()
        self._progress.update(self._task, completed=completed, message=message, done=done, left_s=left_s, told_at=now)

    def close(self) -> None:
        """Stop the bar and release the terminal."""
        self._progress.stop()


class _LeftColumn(ProgressColumn):
    """Counts down from the last estimate, as the library's own column forgets the speed after 30 s without a step."""

    def render(self, task: Task) -> Text:
        left_s = task.fields["left_s"]
        if left_s is None:
            return Text("-:--:--", style="progress.remaining")
        since = task.get_time() - task.fields["told_at"]
        return Text(str(timedelta(seconds=math.ceil(max(0.0, left_s - since)))), style="progress.remaining")
