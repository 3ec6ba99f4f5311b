"""What runs in a worker: one call on one item, in the folder of the run, with its messages kept for the caller."""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from halebrain.core.errors import HalebrainError, unexpected_as_error

T = TypeVar("T")
R = TypeVar("R")
_OURS = "HALEBRAIN_"
_messages: list[str] = []
_busy = threading.Lock()


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """What became of one item: its result or its error, and the messages on the way."""

    result: R | HalebrainError
    messages: tuple[str, ...] = ()


def relay(text: str) -> None:
    """Keep a message for the process that the work is done for; a workflow's `notify` wherever that is another one."""
    _messages.append(text)


def attempt(function: Callable[[T], R], item: T) -> Outcome[R]:
    """Call a function with an item; whatever goes wrong is the outcome of that item."""
    _messages.clear()
    result: R | HalebrainError
    try:
        with unexpected_as_error():
            result = function(item)
    except HalebrainError as error:
        result = error
    return Outcome(result, tuple(_messages))


def set_threads(threads: int) -> None:
    """Let the libraries of this process use so many CPU threads."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        os.environ[name] = str(threads)
    if "torch" in sys.modules:  # it reads the variables once, when it is imported
        sys.modules["torch"].set_num_threads(threads)


@dataclass(frozen=True)
class RemoteCall(Generic[T, R]):
    """A function for workers that this process did not start: they have another folder and another environment.

    A worker works on one item at a time, whatever the number of its threads: those are for the libraries.

    Args:
        function: What is called; it can be pickled.
        threads: CPU threads; `None` = those that the worker was started with.
        folder: Working folder of the run.
        environment: Variables of HaleBrain.
    """

    function: Callable[[T], R]
    threads: int | None = None
    folder: Path = field(default_factory=Path.cwd)
    environment: Mapping[str, str] = field(
        default_factory=lambda: {name: value for name, value in os.environ.items() if name.startswith(_OURS)}
    )

    def __call__(self, item: T, *, threads: int = 1) -> Outcome[R]:
        """Return what became of an item; `threads` are those that the worker was started with."""
        with _busy, chdir(self.folder), _variables(self.environment):
            set_threads(self.threads or threads)
            return attempt(self.function, item)


@contextmanager
def _variables(wanted: Mapping[str, str]) -> Iterator[None]:
    """Have these variables of HaleBrain in the environment, and no others."""
    before = {name: value for name, value in os.environ.items() if name.startswith(_OURS)}
    _replace(before, wanted)
    try:
        yield
    finally:
        _replace(wanted, before)


def _replace(old: Mapping[str, str], new: Mapping[str, str]) -> None:
    for name in old:
        os.environ.pop(name, None)
    os.environ.update(new)
