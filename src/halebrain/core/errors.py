"""The errors that a user may see, each with the exit code that the command line documents.

Every message is one line of four parts: the rule, the value received, where it came from, and what to do.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from halebrain.core.wording import printable

_LONGEST = 500
"""Maximum number of characters of one part of a message."""


class HalebrainError(Exception):
    """Base of every error that the user can fix.

    Args:
        rule: What must hold, as a full clause ("a scan must be three-dimensional").
        received: What was found instead; empty when the rule says it already.
        where: The file, key or option concerned.
        remedy: What the user can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, rule: str, *, received: object = "", where: object = "", remedy: str = "") -> None:
        self.rule, self.received, self.where, self.remedy = rule, str(received), str(where), remedy
        parts = [_line(rule)]
        if self.received:
            parts.append(f", got {_line(self.received)}")
        if self.where:
            parts.append(f" in '{_line(self.where)}'")
        if remedy:
            parts.append(f"; {_line(remedy)}")
        super().__init__("".join(parts))


def _line(text: str) -> str:
    """Return a part of a message as one line: file content may be very long or hold terminal control codes."""
    line = " ".join(text.split())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in printable(line))


class UsageError(HalebrainError):
    """An invalid option or combination of options."""

    exit_code = 2


class PartialFailureError(HalebrainError):
    """Some scans of a cohort failed; the others are complete."""

    exit_code = 3


class DataError(HalebrainError):
    """A file that exists but has invalid content."""

    exit_code = 65


class MissingInputError(HalebrainError):
    """A required file or folder does not exist."""

    exit_code = 66


class UnavailableError(HalebrainError):
    """Weights, a device or an external tool that is not available."""

    exit_code = 69


class WorkerError(HalebrainError):
    """A process that worked on one item died: killed for its memory, or by a crash in a library."""

    exit_code = 70


class UnexpectedError(HalebrainError):
    """An unexpected exception while processing one of many items: a bug in HaleBrain or a library.

    It holds text only, so that it can be sent to another process and keeps no array in memory.

    Args:
        rule: What happened.
        traceback: Where it happened, as Python prints it.
    """

    exit_code = 71

    def __init__(self, rule: str, *, traceback: str = "") -> None:
        super().__init__(rule)
        self.traceback = traceback

    @classmethod
    def of(cls, error: Exception) -> "UnexpectedError":
        """Return what an exception says, with its traceback."""
        said = f"unexpected {type(error).__name__}: {error}"
        return cls(said.rstrip(": "), traceback="".join(traceback.format_exception(error)))


@contextmanager
def unexpected_as_error() -> Iterator[None]:
    """Turn an unexpected exception into an `UnexpectedError`, so that one of many items can fail alone."""
    try:
        yield
    except HalebrainError:
        raise
    except Exception as error:
        # Not chained: the frames of the exception hold the arrays of the item.
        raise UnexpectedError.of(error) from None


class QuietExitError(Exception):
    """No fault: the end of a process that took part in the work of another one, which tells what there is to tell.

    Args:
        code: What this process exits with.
    """

    def __init__(self, code: int = 0) -> None:
        super().__init__(code)
        self.code = code


class CannotWriteError(HalebrainError):
    """The output location is not writable or is not empty."""

    exit_code = 73


class ConfigError(HalebrainError):
    """A configuration with an unknown key, a wrong type or an impossible value."""

    exit_code = 78


def cannot_write_into(folder: Path, error: OSError) -> CannotWriteError:
    """Return the error for a folder that is not writable."""
    return CannotWriteError(
        "the output folder must be writable",
        received=error.strerror or error,
        where=folder,
        remedy="choose another folder, or free disk space",
    )
