"""The table of the items of a run that failed, each with the reason."""

from collections.abc import Mapping
from pathlib import Path

from halebrain.core.files import write_text
from halebrain.io.tables import read_table, tsv_text

FAILED = "failed.tsv"


def write_failed(path: Path, failures: Mapping[str, str]) -> None:
    """Write which scans failed, and why."""
    write_text(path, tsv_text([("scan", "reason"), *sorted(failures.items())]))


def read_failed(path: Path) -> dict[str, str]:
    """Return scan → reason; empty where there is no such table."""
    if not path.is_file():
        return {}
    table = read_table(path, what="a table of failed scans")
    return {row.get("scan", ""): row.get("reason", "") for row in table.rows}
