"""Group results of the BIDS App: the group table, the page of all scans, the participants."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import typer

from halebrain.cli.results import Results, look_at
from halebrain.core.errors import MissingInputError
from halebrain.core.wording import counted

TABLE = "group_anomaly.tsv"


def write_overview(derivative: Path, dataset: Path, *, looked_at: Iterable[str], failed: Mapping[str, str]) -> Path:
    """Write the page of all scans and the table of participants; return the path of the page.

    Args:
        derivative: Where the results are.
        dataset: The BIDS data set that they are of.
        looked_at: Names of the scans of this run.
        failed: Name → reason of those of them that failed.
    """
    from halebrain.cli.bids_work import recorded_failures
    from halebrain.cli.pages import write_index
    from halebrain.io.bids_derivative import write_participants

    write_participants(derivative, dataset)
    # Each scan has its own record, so that jobs that share the folder do not lose each other's failures.
    return write_index(derivative, looked_at, failed, recorded=recorded_failures)


def write_group(derivative: Path, dataset: Path, results: Results) -> None:
    """Write the table of all results, its dictionary and the page of all scans, and report their paths.

    Args:
        derivative: Where the results of participants are.
        dataset: The BIDS data set that they are of.
        results: Receives the paths.

    Raises:
        MissingInputError: There is no result.
        DataError: A result or a record of a failure is damaged.
        CannotWriteError: The folder cannot be written.
    """
    from halebrain.core.files import write_text
    from halebrain.inference.group import COLUMNS, group_rows, group_tsv
    from halebrain.io.volume import stem_of

    rows = group_rows(derivative)
    if not rows:
        raise MissingInputError(
            "the group level needs results", where=derivative, remedy="run the participant level first"
        )
    path = derivative / TABLE
    write_text(path.with_suffix(".json"), json.dumps(COLUMNS, indent=2) + "\n")
    write_text(path, group_tsv(rows))
    index = write_overview(derivative, dataset, looked_at=[stem_of(Path(row["scan"])) for row in rows], failed={})
    if failed := [row["scan"] for row in rows if row["status"] == "failed"]:
        said = f"{counted(len(failed), 'scan')} failed and {'has' if len(failed) == 1 else 'have'} no result"
        typer.echo(f"halebrain: warning: {said}: {', '.join(failed)}", err=True)
    results.line(path)
    results.finish(
        f"{counted(len(rows), 'scan')} in one table",
        wrote=[path, index],
        then=[look_at(index)],
        document={"output": derivative, "level": "group", "table": path, "index": index, "scans": rows},
    )
