"""Timing of steps."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


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
