"""What every data set promises: a folder on disk becomes a manifest and a list of what is wrong with the folder.

A source knows names of files and nothing else: it opens no image, draws no split, and leaves out no scan in silence.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from halebrain.core.config import Config, parse_config
from halebrain.core.errors import MissingInputError
from halebrain.core.registry import Registry
from halebrain.data.datasets.tree import FileTree
from halebrain.io.manifest import Manifest, ScanRecord


@dataclass(frozen=True)
class SourceResult:
    """What a source found.

    Args:
        manifest: The scans that can be used, sorted by name; in no split unless the data set itself says so.
        problems: One line for each file or subject that could not be used as it should.
    """

    manifest: Manifest
    problems: tuple[str, ...] = ()


class Draft:
    """The scans and problems that a source gathers while it looks through a folder."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._records: dict[str, ScanRecord] = {}

    def add(self, record: ScanRecord) -> None:
        """Add a scan; one whose name is taken becomes a problem."""
        first = self._records.setdefault(record.scan_id, record)
        if first is not record:
            self.report(record.scan_id, f"found twice, '{first.image}' is taken and '{record.image}' is not")

    def report(self, what: str, problem: str) -> None:
        """Note one problem in one line, whatever the names in it hold."""
        self.problems.append(f"{what}: {problem}".replace("\n", "\\n").replace("\r", "\\r"))

    def records(self) -> tuple[ScanRecord, ...]:
        """Return the scans, sorted by name."""
        return tuple(self._records[name] for name in sorted(self._records))


class NoSettings(Config):
    """A source that takes no settings."""


class Source(ABC):
    """A data set: a folder in its publisher's layout to a manifest.

    A subclass names its settings in `Settings`, its layout in one line in `layout`, and is filed under the name of
    its module with `@SOURCES.register`.
    """

    Settings: ClassVar[type[Config]] = NoSettings
    layout: str
    walks: ClassVar[bool] = True
    """Whether files are found by their names; where a table names them, the folder is not listed."""

    def __call__(self, root: Path) -> SourceResult:
        """Return the scans below `root` and what is wrong with them.

        Raises:
            MissingInputError: `root` is no folder, or holds no scan in this layout.
        """
        if not root.is_dir():
            raise MissingInputError("a data set must be a folder", where=root, remedy=f"expected {self.layout}")
        tree, draft = FileTree(root, walk=self.walks), Draft()
        for problem in tree.problems:
            draft.report(*problem)
        self.collect(tree, draft)
        records, problems = draft.records(), tuple(draft.problems)
        if not records:
            received = f"no scan, and {len(problems)} problems, first {problems[0]}" if problems else "no such scan"
            raise MissingInputError(
                f"the folder must hold {self.layout}",
                received=received,
                where=root,
                remedy="check the folder and the kind of data set",
            )
        return SourceResult(Manifest(records), problems)

    @abstractmethod
    def collect(self, tree: FileTree, draft: Draft) -> None:
        """Add every scan in `tree` to `draft`, and report what is missing."""


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
    parsed = parse_config(kind.Settings, dict(settings or {}), where=name)
    return kind() if kind.Settings is NoSettings else kind(parsed)  # type: ignore[call-arg]


def read_source(name: str, root: Path, settings: Mapping[str, Any] | None = None) -> SourceResult:
    """Return the scans of the data set `name` below `root`; see `build_source` and `Source`."""
    return build_source(name, settings)(root)
