"""`halebrain doctor`: what is installed and what is missing."""

import typer

from halebrain.cli.console import JsonConsole
from halebrain.cli.options import from_settings
from halebrain.cli.results import to_json


@from_settings()
def doctor(console: JsonConsole) -> None:
    """Show versions, devices, brain extractors, extras and models of this installation, and how to add missing ones."""
    from halebrain.workflows.doctor import examine

    found = examine()
    if console.as_json:
        typer.echo(to_json(found))
        return
    for title, entries in found.items():
        typer.echo(f"{title}")
        for name, value in entries.items():
            typer.echo(f"  {name:<28} {value}")
