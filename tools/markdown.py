"""Markdown that GitHub and the site show alike: escaped text and tables."""

import inspect
import re
from collections.abc import Iterable, Sequence

NOTICE = "<!-- Written from the code by `make reference`. Change the code, not this page. -->"
_CODE = re.compile(r"(`[^`]*`)")
_SPECIAL = {"|": r"\|", "<": "&lt;", "*": r"\*", "{": "&#123;"}


def escape(text: str) -> str:
    """Return a text as one line in which nothing but code in backticks means something.

    Raises:
        ValueError: There is a bar in the code, which GitHub and the site show differently within a table.
    """
    parts = _CODE.split(" ".join(text.split()))
    if any("|" in code for code in parts[1::2]):
        raise ValueError(f"no bar may stand in the code of a table: {text}")
    for place in range(0, len(parts), 2):
        parts[place] = "".join(_SPECIAL.get(letter, letter) for letter in parts[place])
    return "".join(parts)


def code(text: str) -> str:
    """Return a text as code; nothing for an empty one."""
    return f"`{text}`" if text else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines)


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a docstring, escaped, without its sections (`Args:`)."""
    blocks = re.split(r"\n\s*\n", inspect.cleandoc(text))
    kept = []
    for block in blocks:
        if re.match(r"(Args|Raises|Returns|Example|Yields):\s*\n", block):
            break
        kept.append(escape(block))
    return kept
