"""Interface of the data sets: a folder on disk becomes a manifest and a list of problems.

A source only reads file names: it opens no image and draws no split, and it reports every scan that it leaves out.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from halebrain.core.config import Config, parse_config
from halebrain.core.errors import HalebrainError, MissingInputError
from halebrain.core.registry import Registry
from halebrain.core.wording import printable
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.tree import FileTree, LeftOut, one_line, summed_left_out


@dataclass(frozen=True)
class SourceResult:
    """What a source found.

    Args:
        manifest: The scans that can be used, sorted by name; in no split unless the data set itself says so.
        problems: One line for each file or subject that could not be used as it should.
        left_out: Every other image of the folder.
        failed: Scan → error of each that must not or cannot be read, itself or one of its masks.
    """

    manifest: Manifest
    problems: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    failed: Mapping[str, HalebrainError] = field(default_factory=dict)


class Draft:
    """The scans and problems that a source gathers while it looks through a folder."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.reasons: dict[Path, str] = {}
        self._records: dict[str, ScanRecord] = {}

    def add(self, record: ScanRecord) -> None:
        """Add a scan; one whose name is taken becomes a problem."""
        first = self._records.setdefault(record.scan_id, record)
        if first is not record:
            self.leave_out(record.image, "a second image of the same scan")
            self.report(record.scan_id, f"found twice, '{first.image}' is used and '{record.image}' is not")

    def report(self, what: str, problem: str) -> None:
        """Note one problem in one line, whatever the names in it hold."""
        self.problems.append(one_line(f"{what}: {problem}"))

    def leave_out(self, image: Path, reason: str) -> None:
        """Say why an image is not used, in a clause that goes with any number of them; others get the usual reason."""
        self.reasons[image] = reason

    def records(self) -> tuple[ScanRecord, ...]:
        """Return the scans, sorted by name."""
        return tuple(self._records[name] for name in sorted(self._records))


class NoSettings(Config):
    """A source that takes no settings."""


class Source(ABC):
    """A data set: a folder in its publisher's layout to a manifest.

    A subclass names its settings in `Settings`, its layout in one line in `layout`, and is filed with
    `@SOURCES.register`.

    Args:
        settings: An instance of `Settings`; `None` = the defaults.
    """

    Settings: ClassVar[type[Config]] = NoSettings
    layout: str
    walks: ClassVar[bool] = True
    """Whether files are found by their names; where a table names them, the folder is not listed."""
    settings: Config

    def __init__(self, settings: Any = None) -> None:
        self.settings = settings or self.Settings()

    def __call__(self, root: Path) -> SourceResult:
        """Return the scans below `root` and what is wrong with them.

        Raises:
            MissingInputError: `root` is no folder, or holds no scan in this layout.
        """
        if not root.is_dir():
            raise MissingInputError("a data set must be a folder", where=root, remedy=f"expected {self.layout}")
        tree, draft = FileTree(root, walk=self.walks), Draft()
        self.collect(tree, draft)
        records, problems = draft.records(), tuple(draft.problems)
        left_out = self._left_out(tree, draft, records)
        broken = {tree.root / name: error for name, error in tree.broken.items()}
        failed = {printable(r.scan_id): broken[path] for r in records for path in r.files.values() if path in broken}
        records = tuple(record for record in records if printable(record.scan_id) not in failed)
        if not records:
            said = [f"{len(problems)} problems, first {problems[0]}"] if problems else []
            said += [line] if (line := summed_left_out(left_out)) else []
            said += [f"{len(failed)} unreadable, first {next(iter(failed.values()))}"] if failed else []
            received = f"no scan, and {', and '.join(said)}" if said else "no such scan"
            raise MissingInputError(
                f"the folder must hold {self.layout}",
                received=received,
                where=root,
                remedy="check the folder and the kind of data set",
            )
        return SourceResult(Manifest(records), problems, left_out, failed)

    @abstractmethod
    def collect(self, tree: FileTree, draft: Draft) -> None:
        """Add every scan in `tree` to `draft`, and report what is missing."""

    @classmethod
    def with_modality(cls, settings: dict[str, Any], modality: str) -> dict[str, Any]:
        """Return the settings by which scans of one contrast are found; those that are of others are left out after.

        A source without contrasts uses it for all scans.
        """
        return settings

    def _left_out(self, tree: FileTree, draft: Draft, records: tuple[ScanRecord, ...]) -> tuple[LeftOut, ...]:
        """Return every image of the folder that no scan is made of."""
        name = next(name for name in SOURCES if SOURCES.get(name) is type(self))
        usual = f"not a scan of the source '{name}' reads"
        used = {path for record in records for path in record.files.values()}
        images = [name for name in tree.images() if tree.root / name not in used]
        always = [one for one in tree.left_out if tree.root / one.name not in used]
        return (*always, *(LeftOut(name, draft.reasons.get(tree.root / name, usual)) for name in images))


SOURCES: Registry[type[Source]] = Registry("data set")


def build_source(name: str, settings: Mapping[str, Any] | None = None) -> Source:
    """Build the source called `name`.

    Args:
        name: One of `SOURCES.names()`.
        settings: What the source's `Settings` take; `None` = the defaults.

    Raises:
        ConfigError: The name or a setting is unknown or wrong; the message offers the closest one.
    """
    kind = SOURCES.get(name)
    return kind(parse_config(kind.Settings, dict(settings or {}), where=name))


def read_source(name: str, root: Path, settings: Mapping[str, Any] | None = None) -> SourceResult:
    """Return the scans of the data set `name` below `root`; see `build_source` and `Source`."""
    return build_source(name, settings)(root)
