"""Results of a command: lines or one JSON document on stdout, and a closing box on a terminal."""

import json
import math
import shlex
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from halebrain.core.about import NOTICE

if TYPE_CHECKING:
    from halebrain.io.tree import LeftOut
    from halebrain.workflows.detections import Detections

_INDENT = 9
"""Columns that the labels of the box take."""


class Results:
    """Where the results of one command go: lines as they come, or with `as_json` one document on stdout at the end."""

    def __init__(self, command: str, *, as_json: bool = False) -> None:
        self._command, self._as_json = command, as_json

    def line(self, value: object) -> None:
        """Print a result on stdout now, unless a document comes at the end."""
        if not self._as_json:
            typer.echo(value)

    def finish(
        self,
        done: str,
        *,
        wrote: Sequence[Path] = (),
        then: Sequence[str] = (),
        document: Mapping[str, Any] | None = None,
    ) -> None:
        """Print the document where it was asked for, else the box on a terminal.

        Args:
            done: What was done, one line.
            wrote: Where the results are.
            then: What to do next: commands, or words.
            document: The complete JSON document.
        """
        if self._as_json:
            typer.echo(to_json(document or {}))
        elif sys.stderr.isatty():
            _show_box(f"halebrain {self._command}", done, wrote, then)


def to_json(content: object) -> str:
    """Return content as JSON that every reader takes: paths are text, and what is no number is null."""
    return json.dumps(_clean(content), indent=2)


def command_line(*parts: object) -> str:
    """Return a command as one would type it."""
    return shlex.join(["halebrain", *map(str, parts)])


def look_at(page: Path) -> str:
    """Return the hint on how to open a page."""
    return f"open {shlex.quote(str(page))} in a browser"


def failed_scans(reasons: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the scans that failed, with the reason, as a document lists them."""
    return [{"scan": name, "error": reason} for name, reason in sorted(reasons.items())]


def left_out_groups(left_out: "Iterable[LeftOut]") -> list[dict[str, object]]:
    """Return the images of an input that are not used, by reason, as a document lists them."""
    from halebrain.io.tree import grouped_left_out

    groups = grouped_left_out(left_out)
    return [{"reason": reason, "images": len(names), "first": names[0]} for reason, names in groups.items()]


def document_of(output: Path, found: "Detections[Any]", what: str = "scans", **more: object) -> dict[str, object]:
    """Return the document on the results of an input; `what` names them, `more` are further fields."""
    return {
        "output": output,
        "index": found.index,
        **more,
        what: [one.to_json() for one in found.results],
        "failed": failed_scans(found.failures.reasons),
        "left_out": left_out_groups(found.left_out),
    }


def refuse_failures(found: "Detections[Any]", what: str, where: Path, *, each: str = "line") -> None:
    """End the command with exit code 3 where items of an input failed; `what` is one, `each` what holds its error."""
    found.failures.refuse(
        f"every {what} should be processed",
        found.n_items,
        where=where,
        remedy=f"fix the problem in each {each}, then run the same command again; it processes only those {what}s",
    )


def _clean(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _show_box(title: str, done: str, wrote: Sequence[Path], then: Sequence[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    width = console.width - _INDENT - 4
    lines = [Text(done, style="bold")]
    for label, entries in (("written", [str(path) for path in wrote]), ("next", list(then))):
        for place, entry in enumerate(entries):
            said = Text(f"{label if place == 0 else '':<{_INDENT}}", style="cyan")
            lines.append(said.append(_folded(entry, width), style="default"))
    # Lines above and below only, so that a command can be copied as it stands.
    panel = Panel(Text("\n").join(lines), title=title, title_align="left", subtitle=NOTICE, subtitle_align="left")
    panel.box, panel.border_style = box.HORIZONTALS, "dim"
    console.print(panel)


def _folded(entry: str, width: int) -> str:
    """Return a command over several lines that a shell takes as one; other text unchanged."""
    if not entry.startswith("halebrain ") or "'" in entry or len(entry) <= width:
        return entry
    parts = textwrap.wrap(entry, width - 4, break_long_words=False, break_on_hyphens=False)
    return (" \\\n" + " " * (_INDENT + 2)).join(parts)
