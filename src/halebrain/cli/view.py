"""`halebrain view`: review a detection in a local browser: change the threshold, accept or reject findings."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halebrain.core.errors import MissingInputError

if TYPE_CHECKING:
    from halebrain.view.server import ViewServer


def view(
    output: Annotated[Path, typer.Argument(help="Output of halebrain detect: one scan, or a folder of many.")],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of the server; 0 = any free port.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
) -> None:
    """Open pages in a local browser: change the threshold, accept or reject findings. Stop with Ctrl-C."""
    import webbrowser

    server = open_server(output, port=port)
    typer.echo(server.access.address(server.access.token))
    typer.echo("halebrain: the address holds the access key; press Ctrl-C to stop the server", err=True)
    try:
        # A ticket is good once: the arguments of a browser are seen by every user of a machine.
        if not no_browser and not webbrowser.open(server.access.address(server.access.ticket())):
            typer.echo("halebrain: no browser could be started; open the address above", err=True)
        server.serve_forever()
    except KeyboardInterrupt:
        typer.echo("halebrain: stopped", err=True)
    finally:
        server.stop()


def open_server(output: Path, *, port: int = 0) -> "ViewServer":
    """Return the server of a folder, which listens but does not answer yet; port 0 = any that is free."""
    from halebrain.report.index_page import find_provenance
    from halebrain.view.files import first_page
    from halebrain.view.server import ViewServer
    from halebrain.view.visit import Visit

    start = first_page(output) if output.is_dir() else None
    if start is None:
        there = output.is_dir() and bool(find_provenance(output))
        remedy = f"make it: halebrain report {output}" if there else "run halebrain detect with this folder as -o"
        rule = "the folder must hold a page" if there else "the folder must hold a detection"
        raise MissingInputError(rule, where=output, remedy=remedy)

    def remake(provenance: Path, threshold: float | None, min_lesion_mm3: float) -> None:
        from halebrain.cli.console import echo_message
        from halebrain.workflows.remake_pages import remake_in_view
        from halebrain.workflows.remake_settings import RemakeSettings

        settings = RemakeSettings(threshold, min_lesion_mm3, notify=echo_message, keep_growth=True)
        remake_in_view(output, provenance, settings)

    return ViewServer(Visit(output, start, remake), port=port)
