"""Gives one input to HaleBrain under guards, and says whether it ended as promised: done, or refused in one line."""

import contextlib
import importlib
import io
import logging
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Self

from fuzzing.base import Attempt, WrongResultError, kind_of

_CODES = (2, 3, 65, 66, 69, 70, 73, 78)
"""Exit codes of a refusal that `halebrain --help` documents."""
_LONGEST = 1000
"""Letters of a line that a person may still read."""
_LATE = ("halebrain.api", "halebrain.cli.main", "halebrain.workflows.pages", "halebrain.benchmarking.plan")
_LATE += ("halebrain.report.evaluation_page", "halebrain.training.joint", "matplotlib.pyplot", "pydicom.pixels")
_LATE += ("halebrain.io.dicom.read", "halebrain.view.visit", "SimpleITK")
_STATM = Path("/proc/self/statm")
_PACKAGE = f"{os.sep}halebrain{os.sep}"


class HangError(BaseException):
    """An input took too long; no handler of errors may take it for one."""


@dataclass(frozen=True)
class Outcome:
    """How an input ended.

    Args:
        number: Of the input.
        kind: Name of its kind.
        about: What was damaged.
        rule: What it was refused for, without its values; "" where it was accepted.
        fault: What was wrong with how it ended, as a kind of fault; "" = nothing.
        detail: The traceback or the lines behind a fault.
    """

    number: int
    kind: str
    about: str
    rule: str = ""
    fault: str = ""
    detail: str = field(default="", repr=False)


class Judge:
    """Judges inputs one by one, in this process.

    Args:
        seed: Of all inputs.
        seconds: Most time of the processor that one may take; ten times as much may pass where others use it too.
        memory_mib: Most memory that one may ask for, over what the process has.
        only: Names of the kinds to draw from; empty = all.
        keep: Folder in which the files of each input stay; `None` = they are removed.
    """

    def __init__(
        self,
        seed: int,
        *,
        seconds: float = 60.0,
        memory_mib: int = 1024,
        only: tuple[str, ...] = (),
        keep: Path | None = None,
    ) -> None:
        self.seed, self.seconds, self.memory_mib, self.only, self.keep = seed, seconds, memory_mib, only, keep

    def __enter__(self) -> Self:
        """Take over stderr, the alarm clocks and the limit of memory."""
        warm_up()
        with contextlib.ExitStack() as stack:
            self._noise = stack.enter_context(tempfile.TemporaryFile())
            stack.enter_context(_into(self._noise.fileno()))
            stack.enter_context(_heard_logs())
            limits = resource.getrlimit(resource.RLIMIT_AS)
            stack.callback(resource.setrlimit, resource.RLIMIT_AS, limits)
            self._hard = limits[1]
            for alarm in (signal.SIGALRM, signal.SIGPROF):
                stack.callback(signal.signal, alarm, signal.signal(alarm, self._ring))
            self._rang = False
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Give back what was taken over."""
        self._stack.close()

    def judge(self, number: int) -> Outcome:
        """Make the input of a number, give it to HaleBrain, and return how it ended."""
        random = Random(f"{self.seed}:{number}")
        made = kind_of(number, random, self.only)
        base = Path(tempfile.mkdtemp(prefix="fuzz-")) if self.keep is None else self.keep / str(number)
        work, temporary = base / "input", base / "tmp"
        for folder in (work, temporary):
            folder.mkdir(parents=True)
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                attempt = made.make(random, work)
            rule, fault, detail = self._end(attempt, work, temporary)
        finally:
            if self.keep is None:
                shutil.rmtree(base, ignore_errors=True)
        return Outcome(number, made.name, attempt.about, rule, fault, detail)

    def _end(self, attempt: Attempt, work: Path, temporary: Path) -> tuple[str, str, str]:
        before = {path for path in work.rglob("*") if path.name.startswith(".")}
        rule, fault, detail = self._tried(attempt, temporary)
        if fault:
            return rule, fault, detail
        # "unexpected": a traceback of one scan of many, which costs the others nothing and is a fault all the same.
        if noise := [line for line in self._heard() if not line.startswith("halebrain: ") or ": unexpected " in line]:
            return rule, f"noise: {_plain(noise[0])}", "\n".join(noise)
        left = {path for path in work.rglob("*") if path.name.startswith(".")} - before
        if left := sorted(path.name for path in (*left, *temporary.iterdir())):
            return rule, "left behind: " + _plain(left[0]), "\n".join(left)
        return rule, "", ""

    def _tried(self, attempt: Attempt, temporary: Path) -> tuple[str, str, str]:
        """Return rule, fault and detail of one attempt."""
        from click import ClickException

        from halebrain.core.errors import HalebrainError

        try:
            with self._guarded(temporary):
                attempt.run()
        except HalebrainError as error:
            return _refused(error, self._rang)
        except ClickException as error:
            return f"command line: {_plain(error.format_message())}", "", ""
        except HangError:
            return "", f"hang: over {self.seconds:g} s", traceback.format_exc()
        except WrongResultError as error:
            return "", f"wrong result: {error}", traceback.format_exc()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return "", f"{type(error).__name__} in {_place(error)}", traceback.format_exc()
        return "", "hang: an alarm was lost" if self._rang else "", ""

    @contextlib.contextmanager
    def _guarded(self, temporary: Path) -> Iterator[None]:
        self._rang = False
        os.ftruncate(2, 0)
        os.lseek(2, 0, os.SEEK_SET)
        out, folder = sys.stdout, tempfile.tempdir
        sys.stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # refuses what a terminal would
        tempfile.tempdir = str(temporary)
        if _STATM.exists():
            now = int(_STATM.read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (now + (self.memory_mib << 20), self._hard))
        signal.setitimer(signal.ITIMER_PROF, self.seconds)
        signal.setitimer(signal.ITIMER_REAL, 10 * self.seconds)
        try:
            with warnings.catch_warnings(record=True) as self._warned:
                # Each time, not once a place: whichever input comes first must not hide it from the others.
                warnings.simplefilter("always")
                for hidden in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
                    warnings.simplefilter("ignore", hidden)
                yield
        finally:
            for clock in (signal.ITIMER_PROF, signal.ITIMER_REAL):
                signal.setitimer(clock, 0)
            resource.setrlimit(resource.RLIMIT_AS, (self._hard, self._hard))
            sys.stdout, tempfile.tempdir = out, folder

    def _ring(self, *_: Any) -> None:
        self._rang = True
        raise HangError

    def _heard(self) -> list[str]:
        sys.stderr.flush()
        warned = [f"{one.category.__name__}: {one.message}" for one in self._warned]
        return warned + [
            line for line in os.pread(2, 1 << 20, 0).decode("utf-8", "replace").splitlines() if line.strip()
        ]


def warm_up() -> None:
    """Import what is imported late: loading a library is neither an input's time nor its memory."""
    for name in _LATE:
        importlib.import_module(name)


@contextlib.contextmanager
def _into(target: int) -> Iterator[None]:
    """Send everything that is written to stderr, by libraries in C too, into an open file."""
    sys.stderr.flush()
    own, saved = sys.stderr, os.dup(2)
    os.dup2(target, 2)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8", "backslashreplace", write_through=True)
    try:
        yield
    finally:
        sys.stderr = own
        os.dup2(saved, 2)
        os.close(saved)


@contextlib.contextmanager
def _heard_logs() -> Iterator[None]:
    """Write warnings of any logger to stderr, as they reach a user: once, whatever handlers tests have."""
    heard = logging.StreamHandler(sys.stderr)
    heard.setLevel(logging.WARNING)
    own = logging.Formatter("halebrain: %(message)s")  # as the command line has it
    heard.format = lambda record: (own if record.name.startswith("halebrain") else logging.Formatter()).format(record)  # type: ignore[method-assign]
    root = logging.getLogger()
    root.addHandler(heard)
    try:
        yield
    finally:
        root.removeHandler(heard)


def _refused(error: Any, rang: bool) -> tuple[str, str, str]:
    """Return rule, fault and detail of a refusal."""
    rule, text = _plain(error.rule), str(error)
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    wrong = {
        "hang: told as another error": rang,
        "memory: more than the limit was asked for": any(isinstance(one, MemoryError) for one in chain),
        "message: no exit code that is documented": error.exit_code not in _CODES,
        "message: signs that do not show": not text.isprintable(),
        "message: longer than anybody reads": len(text) > _LONGEST,
        "message: does not say what to do": not error.remedy,
    }
    fault = next((words for words, is_so in wrong.items() if is_so), "")
    # A place to look at for what has none of its own.
    return rule, f"{fault} ({rule})" if fault else "", text if fault else ""


def _place(error: BaseException) -> str:
    """Return the innermost function of HaleBrain's in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if _PACKAGE in frame.filename]
    frame = (ours or list(frames))[-1]
    return f"{frame.filename.rpartition(_PACKAGE)[2]}:{frame.name}"


def _plain(text: str) -> str:
    """Return a line without what differs from input to input."""
    text = re.sub(r"^[\w.\-]+: ", "KEY: ", re.sub(r"'[^']*'", "'…'", text))
    return re.sub(r"/\S+", "PATH", re.sub(r"-?\d+(\.\d+)?", "N", text))[:90]
