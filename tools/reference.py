"""Writes what is made from the code: `make reference`."""

from collections.abc import Callable
from pathlib import Path

from tools.boutiques_descriptor import boutiques_descriptor
from tools.commands_page import commands_page
from tools.configuration_page import configuration_page

ROOT = Path(__file__).parents[1]
FILES: dict[str, Callable[[], str]] = {
    "docs/reference/commands.md": commands_page,
    "docs/reference/configuration.md": configuration_page,
    "boutiques.json": boutiques_descriptor,
}
"""File from the root of the repository → what makes its text; the same on every machine."""


def main() -> None:
    """Write the files."""
    for name, make in FILES.items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make(), encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main()
