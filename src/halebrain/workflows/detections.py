"""The run over every item of an input, scan or exam: progress, failures, workers, one result."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from halebrain.core.errors import CannotWriteError, HalebrainError
from halebrain.core.failures import Failures
from halebrain.core.files import check_writable
from halebrain.core.parallel import HERE, Schedule, map_items
from halebrain.core.progress import ProgressBar
from halebrain.io.bids_derivative import begin_derivative, write_participants
from halebrain.io.discovery import Found
from halebrain.io.failed_table import FAILED
from halebrain.io.tree import LeftOut, summed_left_out
from halebrain.report.index_page import INDEX, is_index_page
from halebrain.workflows.detector import Detector
from halebrain.workflows.pages import store_failures, write_index
from halebrain.workflows.settings import DetectSettings
from halebrain.workflows.worker_model import WorkerModel, worker_model


class Named(Protocol):
    """An item of an input: a scan or an exam."""

    @property
    def name(self) -> str:
        """Name of its results."""


Item = TypeVar("Item", bound=Named)
Made = TypeVar("Made")


@dataclass(frozen=True)
class Detections(Generic[Made]):
    """Results of every scan or exam of an input.

    Args:
        results: Those that were made, now or before.
        index: The page of all of them; `None` for filled scans alone, and for a single item in a folder
            without that page.
        left_out: Images of the input that are not used.
        failures: Items that failed, with the reason.
        n_items: Items of the input.
    """

    results: list[Made]
    index: Path | None
    left_out: tuple[LeftOut, ...]
    failures: Failures
    n_items: int

    @property
    def scans(self) -> list[Made]:
        """The results of scans."""
        return self.results

    @property
    def n_scans(self) -> int:
        """Scans of the input, where it is one of scans."""
        return self.n_items


@dataclass(frozen=True)
class Run:
    """Where the results of an input go, and where they are made.

    Args:
        output: Output folder.
        settings: How items are processed.
        failures: Receives the items that fail.
        dataset: The BIDS data set that they belong to, whose derivative `output` becomes; `None` = they are in none.
        single: Whether there is one item, whose files go into `output` itself, without a new page of all items.
        schedule: Where items are processed.
        stop: Whether the first failure ends the run.
        recorded: Reads what else is known to have failed in `output`.
    """

    output: Path
    settings: DetectSettings
    failures: Failures
    dataset: Path | None = None
    single: bool = False
    schedule: Schedule = HERE
    stop: bool = False
    recorded: Callable[[Path], Mapping[str, str]] | None = None


@dataclass(frozen=True)
class Place:
    """What the work on one item needs besides it.

    Args:
        output: Output folder of the run.
        model: The model, in whichever process.
        single: Whether files go into `output` itself.
        named: Whether progress names the item, as there are several.
        bar: The progress bar of the run; `None` in a worker, which reports finished items only.
    """

    output: Path
    model: WorkerModel
    single: bool
    named: bool
    bar: ProgressBar | None = field(default=None, repr=False)

    @property
    def detector(self) -> Detector:
        """The model with its options."""
        return self.model.detector()

    def folder(self, below: Path | str, made: Path | None = None) -> Path:
        """Return the folder of an item, which has a place `below` the output where there are several.

        `made` is what an earlier run of this item alone has written into `output` itself: where it is there, that item
        stays there, so that it does not count twice.
        """
        # A name may be too long for a file; who checks the item says so.
        return self.output if self.single or (made is not None and os.path.exists(made)) else self.output / below  # noqa: PTH110


def run_items(
    items: Found[Item],
    work: Callable[[Place, Item], Made],
    run: Run,
    *,
    description: str = "Detecting",
    with_index: bool = True,
    done: Callable[[Made], None] = lambda _: None,
) -> Detections[Made]:
    """Process items, one after the other or by several workers, and write the page of all of them.

    Args:
        items: The items; images of their input that are not used are reported.
        work: Processes one item; picklable where there are workers.
        run: Where the results go.
        description: Beside the progress bar.
        with_index: Whether the page of all items is written.
        done: Called after each item.

    Raises:
        HalebrainError: Model, device or output folder cannot be used; an item failed and is a single one or ends the
            run.
    """
    settings, output, failures = run.settings, run.output, run.failures
    check_writable(output)
    if line := summed_left_out(items.left_out):
        settings.notify(f"warning: {line}")
    with worker_model(settings, run.schedule) as model, ProgressBar(description, len(items)) as bar:
        if run.dataset is not None:
            begin_derivative(output, run.dataset)
        shown = bar if run.schedule.is_here else None
        place = Place(output, model, run.single, named=len(items) > 1, bar=shown)
        results = _each(items, partial(work, place), run, bar, done)
    if run.dataset is not None:
        write_participants(output, run.dataset)
    index, names = None, [item.name for item in items]
    if with_index and (not run.single or is_index_page(output / INDEX)):  # that of an earlier run must not be outdated
        index = write_index(output, names, failures.reasons, recorded=run.recorded, notify=settings.notify)
    elif not with_index and (failures.reasons or (output / FAILED).exists()):
        store_failures(output, names, failures.reasons, notify=settings.notify)
    return Detections(results, index, items.left_out, failures, len(items))


def refuse_other_kind(kind: str, provenances: Iterable[Path]) -> None:
    """Refuse a folder with results of the other `kind`, some of whose files have the same names."""
    if (other := next((path for path in provenances if path.exists()), None)) is not None:
        raise CannotWriteError(
            f"a folder with results of {kind} holds no others",
            received=other.name,
            where=other.parent,
            remedy="choose another output folder",
        )


def _each(
    items: Sequence[Item], work: Callable[[Item], Made], run: Run, bar: ProgressBar, done: Callable[[Made], None]
) -> list[Made]:
    """Return the results of the items that succeed, in their order; raise the error of a single or last one."""
    found: dict[int, Made] = {}
    results = map_items(work, items, run.schedule, notify=run.settings.notify)
    for count, (number, result) in enumerate(results, start=1):
        bar.reach(count)
        name = items[number].name
        if not isinstance(result, HalebrainError):
            run.failures.went_well(name)
            found[number] = result
            done(result)
            continue
        if run.single:
            raise result
        if run.stop:
            run.failures.record(name, result)
            raise result
        run.failures.add(name, result)
    return [found[number] for number in sorted(found)]
