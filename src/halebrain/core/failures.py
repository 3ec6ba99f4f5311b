"""Items that fail while the run goes on: each is reported at once with its reason, and listed at the end."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from halebrain.core.errors import CannotWriteError, HalebrainError, PartialFailureError, UnexpectedError
from halebrain.core.files import write_text
from halebrain.core.parallel import map_items
from halebrain.core.progress import track
from halebrain.core.wording import first_of

LOGS = "logs"
"""Folder of the tracebacks, in the output."""
_NAMED = 10
Item = TypeVar("Item")


class Failures:
    """What failed in one run, and why.

    Args:
        output: Where the results go; tracebacks of unexpected errors go into its folder `logs`. `None` = on stderr.
        reasons: Item → why, of those that are known already.
    """

    def __init__(self, output: Path | None, reasons: dict[str, str] | None = None) -> None:
        self._logs = None if output is None else output / LOGS
        self.reasons = reasons or {}

    def add(self, name: str, error: HalebrainError) -> None:
        """Report that an item failed, and store the reason.

        Args:
            name: Of the item.
            error: Why.
        """
        reason = str(error)
        if isinstance(error, UnexpectedError):
            reason += f"; {self._keep_traceback(name, error)}"
        sys.stderr.write(f"halebrain: {name}: {reason}\n")
        self.reasons[name] = reason

    def went_well(self, name: str) -> None:
        """Remove the traceback that an earlier run left of an item."""
        if self._logs is not None:
            self._log(self._logs, name).unlink(missing_ok=True)

    def each(
        self, work: Callable[[Item], Any], items: Sequence[Item], *, name: Callable[[Item], str], description: str
    ) -> list[Item]:
        """Process every item under a progress bar, and return the items that succeeded.

        Args:
            work: What is done; whatever it raises is that item's failure.
            items: With what.
            name: Name of an item.
            description: What the bar says.

        Raises:
            HalebrainError: The only item failed, or all of them did; it is the first error.
        """
        done: list[Item] = []
        first: HalebrainError | None = None
        for place, result in track(map_items(work, items, workers=0), description=description, total=len(items)):
            if not isinstance(result, HalebrainError):
                self.went_well(name(items[place]))
                done.append(items[place])
                continue
            first = first or result
            if len(items) > 1:
                self.add(name(items[place]), result)
        if first is not None and not done:
            raise first
        return done

    def refuse(self, rule: str, total: int, *, where: object = "", remedy: str) -> None:
        """End the command with exit code 3 where anything failed.

        Args:
            rule: What should hold of every item.
            total: How many items there were.
            where: Where they are listed.
            remedy: What the user can do.

        Raises:
            PartialFailureError: Something failed.
        """
        if not self.reasons:
            return
        names = sorted(self.reasons)
        raise PartialFailureError(
            rule,
            received=f"{len(names)} of {total} that failed: {first_of(names, _NAMED)}",
            where=where,
            remedy=remedy,
        )

    def _keep_traceback(self, name: str, error: UnexpectedError) -> str:
        """Write where an error happened into a file, and return where that is."""
        if self._logs is not None:
            path = self._log(self._logs, name)
            try:
                write_text(path, error.traceback)
            except CannotWriteError:  # the disk is full, for one: what is known must not get lost
                pass
            else:
                return f"traceback: {path}"
        sys.stderr.write(error.traceback)
        return "traceback: above"

    def _log(self, logs: Path, name: str) -> Path:
        return logs / f"{name.replace('/', '_')}.txt"
