"""Items that fail while the run goes on: each is reported at once with its reason, and listed at the end."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from halebrain.core.errors import CannotWriteError, HalebrainError, PartialFailureError, UnexpectedError
from halebrain.core.files import write_text
from halebrain.core.messages import Notify, log_message
from halebrain.core.parallel import HERE, Schedule, in_order, map_items
from halebrain.core.progress import track
from halebrain.core.wording import first_of

LOGS = "logs"
"""Folder of the tracebacks, in the output."""
_NAMED = 10
Item = TypeVar("Item")
Result = TypeVar("Result")


class Failures:
    """What failed in one run, and why.

    Args:
        output: Where the results go; tracebacks of unexpected errors go into its folder `logs`. `None` = to `notify`.
        notify: Receives a line for each failure.
    """

    ending = ".txt"

    def __init__(self, output: Path | None, notify: Notify = log_message) -> None:
        self._logs = None if output is None else output / LOGS
        self._notify = notify
        self.reasons: dict[str, str] = {}

    def add(self, name: str, error: HalebrainError) -> None:
        """Report that an item failed, and store the reason.

        Args:
            name: Of the item.
            error: Why.
        """
        self.reasons[name] = self.record(name, error)
        self._notify(f"{name}: {self.reasons[name]}")

    def record(self, name: str, error: HalebrainError) -> str:
        """Write the traceback of an unexpected error into a file; return the reason of a failure."""
        if not isinstance(error, UnexpectedError):
            return str(error)
        if (path := self._log(name)) is not None:
            try:
                write_text(path, error.traceback)
            except CannotWriteError:  # the disk is full, for one: what is known must not get lost
                pass
            else:
                return f"{error}; traceback: {path}"
        self._notify(error.traceback.rstrip())
        return f"{error}; traceback: above"

    def went_well(self, name: str) -> None:
        """Remove what an earlier run wrote of the failure of an item."""
        if (path := self._log(name)) is not None:
            path.unlink(missing_ok=True)

    def note(self, name: str, line: str) -> None:
        """Report what a run leaves out of an item that did not fail."""
        self._notify(f"{name}: {line}")

    def each(
        self,
        work: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        name: Callable[[Item], str],
        description: str,
        schedule: Schedule = HERE,
        keep: Callable[[Item, Result], None] = lambda item, result: None,
        raise_if_none: bool = True,
    ) -> list[Item]:
        """Process every item under a progress bar, and return the items that succeeded.

        Whatever `work` raises is that item's failure.

        Args:
            work: What is done with each.
            items: The items.
            name: Returns the name of one.
            description: What the bar says.
            schedule: Where; `work` can be pickled unless it is this process.
            keep: Receives each item with its result in this process, in the order of the items.
            raise_if_none: Whether the first error is raised where the only item or all of them failed; other parts may
                have more of them.
        """
        done: list[Item] = []
        first: HalebrainError | None = None
        results = map_items(work, items, schedule, notify=self._notify)
        for place, result in in_order(track(results, description=description, total=len(items))):
            if not isinstance(result, HalebrainError):
                keep(items[place], result)
                self.went_well(name(items[place]))
                done.append(items[place])
                continue
            first = first or result
            if len(items) > 1 or not raise_if_none:
                self.add(name(items[place]), result)
        if first is not None and not done and raise_if_none:
            raise first
        return done

    def refuse(self, rule: str, total: int, *, where: object = "", remedy: str) -> None:
        """End the command with exit code 3 where any of `total` items failed; `rule` says what should hold of each."""
        if not self.reasons:
            return
        names = sorted(self.reasons)
        raise PartialFailureError(
            rule,
            received=f"{len(names)} of {total} that failed: {first_of(names, _NAMED)}",
            where=where,
            remedy=remedy,
        )

    def _log(self, name: str) -> Path | None:
        return None if self._logs is None else self._logs / f"{name.replace('/', '_')}{self.ending}"
