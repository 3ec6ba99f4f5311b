"""A named collection of interchangeable parts (reconstructors, anomalies, metrics, brain extractors)."""

import difflib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from halebrain.core.errors import ConfigError

T = TypeVar("T")


def suggestion(name: str, known: list[str]) -> str:
    """Return "did you mean 'x'?" for a near miss, else the list of known names."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(sorted(known))}"


class Registry(Generic[T]):
    """Maps a stable string key to one part of a kind.

    Args:
        kind: What the parts are, for error messages ("reconstructor").

    Example:
        >>> METRICS: Registry[int] = Registry("metric")
        >>> METRICS.register("one")(1)
        1
        >>> METRICS.get("one")
        1
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._parts: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files its argument under `name`; a name is given once only."""
        if name in self._parts:
            raise ValueError(f"the {self.kind} '{name}' is registered twice")

        def keep(part: T) -> T:
            self._parts[name] = part
            return part

        return keep

    def get(self, name: str) -> T:
        """Return the part called `name`; `ConfigError` with the closest name if it is unknown."""
        if name not in self._parts:
            raise ConfigError(
                f"{'an' if self.kind[0] in 'aeiou' else 'a'} {self.kind} must be a known one",
                received=repr(name),
                remedy=suggestion(name, self.names()),
            )
        return self._parts[name]

    def names(self) -> list[str]:
        """Return every registered name, sorted."""
        return sorted(self._parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())
