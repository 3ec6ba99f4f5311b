"""The preprocessed data that the paper's authors share (some 37 GB), and the split files of their repository.

Layout: `Train/ixi/{mask,t1,t2}` and `Test/{Brats21,MSLUB,ATLAS_v2,WMH}/{mask,seg,t1,t2,…}`, files
`IXI076-Guys-0753_{t1,mask}.nii.gz`, `BraTS2021_00538_{t1,mask,seg}.nii.gz`; splits in `splits/*.csv`. Images are
stripped, in SRI24 space at 1 mm. Subjects are named as the sources of the original data sets name them.

Splits are read by subject: the same person is written with other paths and file names from list to list, which is how
test subjects came to stand in the training folds.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from halebrain.core.config import Config
from halebrain.data.datasets.base import SOURCES, Draft
from halebrain.data.datasets.patterns import Found, Groups, PatternSource
from halebrain.data.datasets.tables import age_and_sex, column, read_rows
from halebrain.io.tables import Row
from halebrain.io.tree import NIFTI, FileTree, label

_FILE = r"splits/([A-Za-z0-9_]+?)_(train|val|test)(?:_fold(\d+))?\.csv"
_WEAK_VALIDATION = {"Brats21": 10, "ATLAS_v2": 6}
"""Rows at the head of a validation list on which the published code validates; it trains on the rest."""
_NAMED = 3
_List = tuple[str, str, int | None]
_SCAN = (
    r"(?:Train|Test)/(?P<folder>FOLDER)/(?P<contrast>(?i:t1|t2|flair|t1ce|pd))/(?P<case>NAME)"
    rf"_(?i:(?P=contrast))(?P<ending>{NIFTI})"
)


class SplitFiles:
    """The lists of subjects in `splits/`.

    Args:
        tree: The folder.
        stems: For each data set's name in the lists, a regular expression with the group `subject` that the names of
            its scans begin with.

    Attributes:
        people: Every row about a subject, by data set and label.
    """

    def __init__(self, tree: FileTree, stems: Mapping[str, str]) -> None:
        self.people: dict[tuple[str, str], list[Row]] = defaultdict(list)
        self._lists: dict[_List, list[str]] = {}
        for path, found in tree.match(_FILE):
            name = next((name for name in stems if name.lower() == found[1].lower()), None)
            if name is None:
                continue
            subjects: dict[str, None] = {}
            for row in read_rows(path):
                scan = column(row, "img_path", "img_name").rpartition("/")[2]
                match = re.match(stems[name], scan)
                if match:
                    subjects[label(match["subject"])] = None
                    self.people[name, label(match["subject"])].append(row)
            self._lists[name, found[2], int(found[3]) if found[3] else None] = list(subjects)

    def assign(self, fold: int, *, weak_training: bool) -> dict[tuple[str, str], str]:
        """Return the split of each listed subject, by data set and label; who is in test is in nothing else."""
        splits: dict[tuple[str, str], str] = {}
        # The last word wins, so a subject in several lists is never trained on and tested on.
        for wanted in ("train", "val", "test"):
            for (name, split, of_fold), subjects in self._lists.items():
                if split != wanted or of_fold not in (None, fold):
                    continue
                head = _WEAK_VALIDATION.get(name, 0) if weak_training and split == "val" else 0
                for place, subject in enumerate(subjects):
                    splits[name, subject] = "train" if head and place >= head else split
        return splits

    def missing(self, name: str, fold: int) -> list[str]:
        """Return which lists of a data set are not there."""
        expected: list[tuple[str, int | None]] = [("val", None), ("test", None)]
        if name == "IXI":
            expected = [("train", fold), ("val", fold), ("test", None)]
        names = [f"{name}_{split}" + ("" if k is None else f"_fold{k}") for split, k in expected]
        lacking = [file for file, key in zip(names, expected, strict=True) if (name, *key) not in self._lists]
        return [f"no splits/{file}.csv; its subjects are in no split" for file in lacking]

    def leaks(self) -> Iterator[tuple[str, str]]:
        """Yield each kind of leak: the data set, and how many subjects are where they should not be, by fold."""
        for name in sorted({name for name, _, _ in self._lists}):
            lists = {key[1:]: set(subjects) for key, subjects in self._lists.items() if key[0] == name}
            folds = sorted({fold for _, fold in lists if fold is not None})
            each: list[int | None] = [*folds] or [None]
            for first, second, text in (
                ("train", "test", "test subjects are in the published training list"),
                ("val", "test", "test subjects are in the published validation list"),
                ("train", "val", "training and validation list share subjects"),
            ):
                shared = {_of(k): _get(lists, first, k) & _get(lists, second, k) for k in each}
                yield from _format_shared(name, text, shared, "; each is kept in test, else in validation, only")
            pairs = {
                f" of folds {i} and {j}": _get(lists, "val", i) & _get(lists, "val", j)
                for i, j in combinations(folds, 2)
            }
            yield from _format_shared(name, "validation lists share subjects", pairs, "")


def _of(fold: int | None) -> str:
    return "" if fold is None else f" of fold {fold}"


def _get(lists: dict[tuple[str, int | None], set[str]], split: str, fold: int | None) -> set[str]:
    return lists.get((split, fold)) or lists.get((split, None)) or set()


def _format_shared(name: str, text: str, shared: dict[str, set[str]], remedy: str) -> Iterator[tuple[str, str]]:
    counts = [f"{len(subjects)}{where}" for where, subjects in shared.items() if subjects]
    everyone = sorted(set().union(*shared.values()))
    if counts:
        such = ", ".join(everyone[:_NAMED]) + (", …" if len(everyone) > _NAMED else "")
        yield name, f"{text}: {', '.join(counts)} ({such}){remedy}"


@dataclass(frozen=True)
class _Set:
    name: str
    stem: str
    pathology: str
    site: str = ""


_SETS = {
    "ixi": _Set("IXI", r"(?P<subject>IXI\d{3})-(?P<site>Guys|HH|IOP)-\d+", "healthy"),
    "brats21": _Set("Brats21", r"(?P<subject>BraTS2021_\d+)", "tumour"),
    "mslub": _Set("MSLUB", r"(?P<subject>patient\d+)", "ms", "Ljubljana"),
    "atlas_v2": _Set("ATLAS_v2", r"sub-(?P<subject>(?P<site>r\d+)s\d+)(?:_ses-(?P<session>[A-Za-z0-9]+))?", "stroke"),
    "wmh": _Set("WMH", r"(?P<subject>(?P<site>[A-Za-z0-9]+)_\d+)", "wmh"),
}


class PublishedSettings(Config):
    """Which of the published splits is meant.

    Args:
        fold: Fold of IXI, 0 to 4, with which all published splits are taken; `None` = scans in no split. The published
            folds hold subjects of the test set: each is kept for test only, and named.
        weak_training: Whether the validation lists of BraTS21 and ATLAS v2.0 are used as the published code does: the
            first 10 and 6 rows for validation, all others to train the segmenter.
    """

    fold: Annotated[int, Field(ge=0, le=4)] | None = None
    weak_training: bool = False


@SOURCES.register("published")
class PublishedSource(PatternSource):
    """Reads every scan of the shared data with brain mask, annotation, age and sex; splits only when asked for."""

    Settings = PublishedSettings
    settings: PublishedSettings
    layout = "the paper's preprocessed data (Train/ixi/t1/IXI002-Guys-0828_t1.nii.gz, Test/Brats21/t1, splits)"
    scans = tuple(
        _SCAN.replace("FOLDER", f"(?i:{folder}(?:_uniso)?)").replace("NAME", f"{entry.stem}[^/]*")
        for folder, entry in _SETS.items()
    )
    site = "{site}"
    pathology = "{pathology}"
    brain_mask = ("../mask/{case}_mask",)
    lesion = ("../seg/{case}_seg",)

    def collect(self, tree: FileTree, draft: Draft) -> None:
        """Add every scan; report missing masks, listed subjects without a scan, and what the splits share."""
        for path, _ in tree.match(_SCAN.replace("FOLDER", "[^/]+").replace("NAME", "[^/]+")):
            draft.leave_out(path, "not of the published data sets")  # but for those that are
        files = SplitFiles(tree, {entry.name: entry.stem for entry in _SETS.values()})
        splits: dict[tuple[str, str], str] = {}
        if self.settings.fold is not None:
            splits = files.assign(self.settings.fold, weak_training=self.settings.weak_training)

        def about(path: Path, groups: Groups) -> dict[str, Any]:
            who = groups["set"], label(groups["subject"])
            return {**age_and_sex(files.people.get(who, [])), "split": splits.get(who)}

        found = self.add_scans(tree, draft, about)
        self._report_splits(files, splits, {(scan.groups["set"], scan.record.subject) for scan in found}, draft)

    def _groups(self, tree: FileTree, path: Path, groups: Groups) -> Groups:
        entry, site = _SETS[groups["folder"].lower().removesuffix("_uniso")], groups.get("site", "")
        return {
            **groups,
            "path": tree.relative(path),
            "set": entry.name,
            "pathology": entry.pathology,
            # The cohort R034 of ATLAS stands small in names.
            "site": entry.site or (site.upper() if re.fullmatch(r"r\d+", site) else site),
        }

    def _report(self, found: Sequence[Found], draft: Draft) -> None:
        for record, groups in found:
            for what, file in (("brain mask", record.brain_mask), ("segmentation", record.lesion)):
                if file is None and (what == "brain mask" or record.pathology != "healthy"):
                    draft.report(groups["path"], f"no {what}; it is listed without one")

    def _report_splits(
        self, files: SplitFiles, splits: dict[tuple[str, str], str], seen: set[tuple[str, str]], draft: Draft
    ) -> None:
        if self.settings.fold is None:
            return
        for name in sorted({name for name, _ in seen}):
            listed = {subject for kind, subject in splits if kind == name}
            lacking = sorted(listed - {subject for kind, subject in seen if kind == name})
            if lacking:
                draft.report(name, f"{len(lacking)} of {len(listed)} listed subjects have no scan, first {lacking[0]}")
            for problem in files.missing(name, self.settings.fold):
                draft.report(name, problem)
        for what, leak in files.leaks():
            draft.report(what, leak)
