"""The BIDS validator, if installed: errors of a data set."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from halebrain.core.errors import DataError
from halebrain.core.wording import first_of

PROGRAM = "bids-validator-deno"


def find_validator() -> Path | None:
    """Return the program, on the PATH or beside the running Python; `None` where it is not there."""
    beside = Path(sys.executable).parent / PROGRAM
    found = shutil.which(PROGRAM) or (str(beside) if beside.is_file() else None)
    return None if found is None else Path(found)


def validation_errors(program: Path, dataset: Path) -> list[str]:
    """Return what is wrong with a data set, "CODE: place"; warnings are left out."""
    done = subprocess.run(
        [str(program), str(dataset), "--format", "json"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    try:
        issues = json.loads(done.stdout)["issues"]["issues"]
    except (ValueError, KeyError, TypeError):
        raise DataError(
            "the BIDS validator must return a result",
            received=f"exit code {done.returncode}",
            where=dataset,
            remedy="--skip-bids-validation leaves it out",
        ) from None
    return [_text(issue) for issue in issues if issue.get("severity") == "error"]


def refuse_invalid(program: Path, dataset: Path) -> None:
    """Refuse a data set with errors; the message names the first."""
    errors = validation_errors(program, dataset)
    if errors:
        raise DataError(
            "a data set must be valid BIDS",
            received=first_of(errors),
            where=dataset,
            remedy=f"see {PROGRAM} for all, or --skip-bids-validation",
        )


def _text(issue: dict[str, object]) -> str:
    place = issue.get("location") or issue.get("affects") or ""
    code = ".".join(str(issue[key]) for key in ("code", "subCode") if issue.get(key))
    return f"{code} {place}".strip()
