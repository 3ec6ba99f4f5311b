"""The participant level of the BIDS App: process scans in one or several processes, with a record of failures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from halebrain.core.errors import DataError, HalebrainError, UnexpectedError
from halebrain.core.wording import printable

if TYPE_CHECKING:
    from halebrain.core.progress import ProgressBar
    from halebrain.inference.predictor import Predictor
    from halebrain.thresholds.choose import DetectionOptions


@dataclass(frozen=True)
class Looking:
    """Settings for processing scans.

    Args:
        dataset: The BIDS data set.
        output: The derivative.
        model: Path or name of the model.
        threshold: "auto", a number, or a stored name.
        min_lesion_mm3: Smallest lesion kept; `None` = the model's own.
        device: Name of the device.
        overwrite: Replace results made with other settings.
        settings: More of `Predictor`.
    """

    dataset: Path
    output: Path
    model: Path | None
    threshold: str
    min_lesion_mm3: float | None
    device: str
    overwrite: bool
    settings: dict[str, Any] = field(default_factory=dict)


def look_at_all(
    looking: Looking, images: Sequence[Path], *, n_procs: int, threads: int | None, stop: bool
) -> dict[str, str]:
    """Process every scan, and return name → reason of those that failed.

    Args:
        looking: How.
        images: Scans of the data set.
        n_procs: Scans in parallel; more than one run in separate processes.
        threads: CPU threads of each process; `None` = the cores, shared out.
        stop: Raise the first error instead of going on.
    """
    import os

    from halebrain.core.parallel import map_items
    from halebrain.core.progress import ProgressBar

    each, alone = threads or max(1, (os.cpu_count() or 1) // n_procs), n_procs == 1
    _check_model(looking, alone=alone)
    failed = {}
    with ProgressBar("Detecting", len(images)) as bar:
        # Steps within a scan are shown for this process only; other processes report finished scans.
        look = partial(_look_at, looking, bar=bar if alone else None, named=len(images) > 1)
        found = map_items(look, images, workers=0 if alone else n_procs, threads=each)
        for done, (index, error) in enumerate(found, start=1):
            bar.reach(done)
            record = _record(looking, images[index])
            if not isinstance(error, HalebrainError):
                record.unlink(missing_ok=True)
                continue
            name = _name(images[index])
            _write_record(record, images[index].relative_to(looking.dataset), error)
            if stop:
                raise error
            typer.echo(f"halebrain: {name}: {error!s}", err=True)
            failed[name] = str(error)
    return dict(sorted(failed.items()))


def recorded_failures(derivative: Path) -> dict[str, str]:
    """Return name → reason of every scan with a record of a failure and no result, whichever run it was."""
    from halebrain.inference.group import FAILURES
    from halebrain.inference.outputs import OutputNames

    found = {}
    for path in (derivative / FAILURES).glob("*.json"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            place, reason = derivative / record["input_in_dataset"], str(record["error"])
        except FileNotFoundError:
            continue  # another job has just completed it
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                "a record of a failure must be readable JSON",
                received=error,
                where=path,
                remedy="remove it, and run the participant level again",
            ) from error
        if not OutputNames(place.parent, path.stem).provenance.is_file():
            found[path.stem] = reason
    return found


def _look_at(looking: Looking, image: Path, *, bar: "ProgressBar | None", named: bool) -> None:
    """Process one scan, and advance the progress bar if there is one."""
    from halebrain.cli.detecting import detect_scan
    from halebrain.cli.scan_steps import begin_scan
    from halebrain.inference.cohort import bids_scan

    predictor, choice = _predictor(*_key(looking))
    scan = bids_scan(image, looking.dataset)
    assert scan.in_dataset is not None
    folder = looking.output / scan.in_dataset.parent
    steps = None if bar is None else begin_scan(bar, scan, predictor, named=named)
    detect_scan(predictor, scan, folder, choice=choice, overwrite=looking.overwrite, steps=steps)


def _check_model(looking: Looking, *, alone: bool) -> None:
    """Load the model once before any scan, as problems of model or device affect all scans."""
    from halebrain.cli import options

    options.find_device(looking.device)
    # Other processes load their own; a copy on a GPU would take their room.
    _predictor(*_key(looking if alone else replace(looking, device="cpu")))


def _key(looking: Looking) -> tuple[Any, ...]:
    settings = tuple(sorted(looking.settings.items()))
    return looking.model, looking.threshold, looking.min_lesion_mm3, looking.device, settings


@lru_cache(maxsize=1)
def _predictor(
    model: Path | None, threshold: str, min_lesion_mm3: float | None, device: str, settings: tuple[tuple[str, Any], ...]
) -> tuple["Predictor", "DetectionOptions"]:
    """Return the model, which each process loads once."""
    from halebrain.cli.detect import load_predictor

    return load_predictor(model, threshold, "auto", min_lesion_mm3, device, **dict(settings))


def _record(looking: Looking, image: Path) -> Path:
    from halebrain.inference.group import FAILURES

    return looking.output / FAILURES / f"{_name(image)}.json"


def _name(image: Path) -> str:
    from halebrain.io.volume import stem_of

    return printable(stem_of(image))


def _write_record(path: Path, place: Path, error: HalebrainError) -> None:
    from halebrain.core.files import write_text

    said: dict[str, Any] = {"input_in_dataset": place.as_posix(), "error": str(error)}
    if isinstance(error, UnexpectedError):
        said["traceback"] = error.traceback.splitlines()
    write_text(path, json.dumps(said, indent=2) + "\n")
