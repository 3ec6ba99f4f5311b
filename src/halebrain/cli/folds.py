"""`halebrain folds`: from prepared data sets to the tables of a benchmark's folds."""

from pathlib import Path
from typing import Annotated

from halebrain.cli.console import JsonConsole
from halebrain.cli.options import from_settings
from halebrain.cli.results import command_line
from halebrain.core.wording import counted
from halebrain.workflows.settings import FoldSettings, Option


@from_settings()
def folds(
    output: Annotated[Path, Option("New folder for fold0.tsv, fold1.tsv …", ("--output", "-o"), is_output=True)],
    settings: FoldSettings,
    console: JsonConsole,
) -> None:
    """Split the subjects of data sets into the folds of a benchmark, one table each. Prints their paths."""
    results = console.begin("folds")
    from halebrain.workflows.folds import write_folds

    done = write_folds(output, settings)
    for path in done.tables:
        results.line(path)
    each = "; ".join(
        f"{split} {', '.join(f'{number} {name}' for name, number in conditions.items()) or 'none'}"
        for split, conditions in done.subjects[0].items()
    )
    results.finish(
        f"{counted(len(done.tables), 'fold')}, each with {each}",
        wrote=[output],
        then=[command_line("benchmark", "-c", "paper", "--folds", output, "-o", "table1", "--dry-run")],
        document={"output": output, "folds": done.tables, "subjects": done.subjects, "notes": done.notes},
    )
