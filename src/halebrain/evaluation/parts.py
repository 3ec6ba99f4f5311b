"""The scans of an evaluation, scored in one run or in parts that know nothing of each other; the last part joins them.

A part writes a file for each scan into `OUTPUT/scored/…`. The part that finds every scan there joins them in the order
of the scans, so tables and page are those of one run, to the bit.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

from halebrain.core.about import versions
from halebrain.core.errors import DataError, HalebrainError, cannot_write_into
from halebrain.core.failures import Failures
from halebrain.core.files import file_lock
from halebrain.core.parallel import HERE, Schedule
from halebrain.evaluation.contribution import Contribution, identity_of, read_contribution, write_contribution
from halebrain.io.checksum import json_sha256, scan_sha256
from halebrain.io.failed_table import read_failed, write_failed
from halebrain.io.manifest import Manifest

SCORED = "scored"
"""Folder of the files of parts, in the output."""
_JOINING_S = 3600.0
"""Maximum wait for another part that joins at the same time."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class Part:
    """A part of the scans: every `count`-th one, from the one at `index`."""

    index: int = 0
    count: int = 1

    @property
    def failed(self) -> str:
        """Name of its list of failures."""
        return f"failed-{self.index}of{self.count}.tsv"


@dataclass(frozen=True)
class ScansLeft:
    """Scans that other parts have not scored yet.

    Args:
        by_part: Index of a part → number of its scans that are left; empty = another part has joined everything.
    """

    by_part: Mapping[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(self.by_part.values())


@dataclass(frozen=True)
class Scans(Generic[Item]):
    """What is scored: scans or exams, their names, and the files that the figures of each depend on."""

    items: Sequence[Item]
    name: Callable[[Item], str]
    files: Callable[[Item], Sequence[Path | None]]


class Scoring:
    """Scores the scans of one evaluation; `scoring` makes one for parts.

    Args:
        failures: Collects the scans that fail.
        output: Where parts keep their files; `None` = there are no parts.
        schedule: Where scans are scored.
        part: Which of them; `None` = all.
    """

    def __init__(
        self, failures: Failures, *, output: Path | None = None, schedule: Schedule = HERE, part: Part | None = None
    ) -> None:
        self.failures, self.schedule, self.part = failures, schedule, part or Part()
        self.n_scored = self.n_kept = 0
        self._output, self._held, self._joined = output, ExitStack(), list[Path]()

    def each(
        self,
        work: Callable[[Item], Contribution],
        scans: Scans[Item],
        *,
        depends: object,
        keep: Callable[[Item, Contribution], None],
    ) -> list[Item] | ScansLeft:
        """Score every scan, hand what each adds to `keep` in the order of the scans, and return those that succeeded.

        Of several parts, only the one that finds all others done hands over anything; before, what is left is returned.

        Args:
            work: Scores one scan; picklable where there are workers.
            scans: The scans.
            depends: What all figures depend on besides scans and versions: model and settings, as JSON data.
            keep: Receives each scan with what it adds.

        Raises:
            HalebrainError: The first error, where no scan succeeded.
        """
        names = [scans.name(item) for item in scans.items]
        run = json_sha256([depends, names, versions()])
        folder = None if self._output is None else self._output / SCORED / run[:16]
        if folder is None or (self.part.count == 1 and not folder.is_dir()):
            done = self._run(work, scans, scans.items, keep)
            self.n_scored = len(done)
            return done
        stored = _Stored(folder, {name: place for place, name in enumerate(names)}, self.part.count)
        self._score_own(work, scans, stored, run)
        # One part joins; another one that ends in the same second finds the folder gone.
        self._held.enter_context(file_lock(folder, wait_s=_JOINING_S))
        if not folder.is_dir():
            return ScansLeft()
        if left := stored.left:
            return ScansLeft(left)
        self.failures.reasons = {name: stored.failed[name] for name in names if name in stored.failed}
        kept = [item for item, name in zip(scans.items, names, strict=True) if name not in stored.failed]
        if not kept:
            raise DataError(
                "an evaluation needs a scan that can be scored",
                received=next(iter(stored.failed.values()), "none"),
                where=folder,
                remedy="fix the problem of each, then run the parts again",
            )
        for item in kept:
            keep(item, read_contribution(stored.path(scans.name(item))))
        if not stored.failed:
            self._joined.append(folder)
        return kept

    def end(self, *, whole: bool) -> None:
        """Remove what was joined, if `whole`, and let other parts go on; where scans failed, the others stay."""
        if whole:
            for folder in self._joined:
                shutil.rmtree(folder)
        self._held.close()
        if self._output is not None:
            with suppress(OSError):  # there is none, or it holds an evaluation with other settings
                (self._output / SCORED).rmdir()

    def _score_own(self, work: Callable[[Item], Contribution], scans: Scans[Item], stored: "_Stored", run: str) -> None:
        """Score the scans of this part that have no file yet, and write its list of failures."""
        own = list(scans.items[self.part.index :: self.part.count])
        depends = {scans.name(item): _identity(run, scans.files(item)) for item in own}
        todo = [item for item in own if identity_of(stored.path(scans.name(item))) != depends[scans.name(item)]]

        def write(item: Item, made: Contribution) -> None:
            write_contribution(stored.path(scans.name(item)), made, identity=depends[scans.name(item)])

        _make_folder(stored.folder)
        for item in todo:  # what was scored of other files counts no more
            stored.path(scans.name(item)).unlink(missing_ok=True)
        if self.part.count == 1:
            for table in stored.lists():
                table.unlink()
        done = self._run(work, scans, todo, write, raise_if_none=False)
        self.n_kept = len(own) - len(todo)
        self.n_scored = self.n_kept + len(done)
        failed = stored.folder / self.part.failed
        if self.failures.reasons:
            write_failed(failed, self.failures.reasons)
        else:
            failed.unlink(missing_ok=True)

    def _run(
        self,
        work: Callable[[Item], Contribution],
        scans: Scans[Item],
        items: Sequence[Item],
        keep: Callable[[Item, Contribution], None],
        *,
        raise_if_none: bool = True,
    ) -> list[Item]:
        return self.failures.each(
            work,
            items,
            name=scans.name,
            description="Evaluating",
            schedule=self.schedule,
            keep=keep,
            raise_if_none=raise_if_none,
        )


@dataclass(frozen=True)
class _Stored:
    """The files of the parts of one evaluation."""

    folder: Path
    places: Mapping[str, int]
    parts: int

    def path(self, name: str) -> Path:
        """Return the file of a scan, which has the number of the scan: names may be long, or hold slashes."""
        return self.folder / f"{self.places[name]:06d}.npz"

    def lists(self) -> list[Path]:
        """Return the lists of failures of all parts."""
        return sorted(self.folder.glob("failed-*.tsv"))

    @cached_property
    def failed(self) -> dict[str, str]:
        """Scans that failed in any part and have no file, with the reason."""
        known = {name: reason for table in self.lists() for name, reason in read_failed(table).items()}
        return {name: reason for name, reason in known.items() if not self.path(name).is_file()}

    @property
    def left(self) -> dict[int, int]:
        """Index of a part → number of its scans that are neither scored nor failed."""
        found: dict[int, int] = {}
        for name, place in self.places.items():
            if name not in self.failed and not self.path(name).is_file():
                found[place % self.parts] = found.get(place % self.parts, 0) + 1
        return dict(sorted(found.items()))


def _identity(run: str, files: Sequence[Path | None]) -> str:
    """Return a hash of all that the figures of a scan depend on; empty where a file cannot be read."""
    try:
        return json_sha256([run, [None if path is None else scan_sha256(path) for path in files]])
    except (HalebrainError, OSError):
        return ""


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write_into(folder.parent, error) from error


def described(rows: Manifest) -> list[list[object]]:
    """Return what is stated of the scans of a manifest beside their files, whose places may differ between machines."""
    return [[r.scan_id, r.split, r.pathology, r.site, r.age, r.sex, r.space] for r in rows]


@contextmanager
def scoring(output: Path, failures: Failures, *, schedule: Schedule, part: Part) -> Iterator[Scoring]:
    """Give what scores the scans of one evaluation, whose tables are written in the block.

    What the parts have kept is removed when the block ends without an error, after all scans were scored.
    """
    found = Scoring(failures, output=output, schedule=schedule, part=part)
    try:
        yield found
    except BaseException:
        found.end(whole=False)
        raise
    found.end(whole=True)
