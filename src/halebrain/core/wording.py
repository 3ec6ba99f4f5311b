"""Wording of numbers in sentences."""

import math
from collections.abc import Sequence


def counted(number: int, thing: str, things: str = "") -> str:
    """Return "1 scan" or "3 scans"; the plural is `thing` with an s unless `things` is given."""
    return f"{number} {named(number, thing, things)}"


def whole_percent(share: float) -> int:
    """Return a share in whole percent, rounded down, so that a guarantee is never overstated.

    Example:
        >>> whole_percent(0.651), whole_percent(0.9999)
        (65, 99)
    """
    return math.floor(100 * share + 1e-9)  # 0.29 times 100 is 28.999…


def named(number: int, thing: str, things: str = "") -> str:
    """Return "scan" for one and "scans" for any other number, where the number stands apart."""
    return thing if number == 1 else things or f"{thing}s"


def first_of(names: Sequence[str], most: int = 5) -> str:
    """Return the first names of a list with commas, and how many more there are.

    Example:
        >>> first_of(["01", "02", "03"], most=2)
        '01, 02 and 1 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def printable(name: str) -> str:
    """Return `name` with every byte that is no UTF-8 spelt out in hexadecimal, so that it can be printed."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
