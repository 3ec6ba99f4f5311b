"""The split files of the paper's repository, and the subjects that are in several splits.

They are read by subject: the same person is written with other paths and file names from list to list, which is how
test subjects came to stand in the training folds.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations

from halebrain.data.datasets.tables import column, read_rows
from halebrain.io.tables import Row
from halebrain.io.tree import FileTree, label

_FILE = r"splits/([A-Za-z0-9_]+?)_(train|val|test)(?:_fold(\d+))?\.csv"
_WEAK_VALIDATION = {"Brats21": 10, "ATLAS_v2": 6}
"""Rows at the head of a validation list on which the published code validates; it trains on the rest."""
_NAMED = 3
_List = tuple[str, str, int | None]


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
                yield from _told(name, text, shared, "; each is kept in test, else in validation, only")
            pairs = {
                f" of folds {i} and {j}": _get(lists, "val", i) & _get(lists, "val", j)
                for i, j in combinations(folds, 2)
            }
            yield from _told(name, "validation lists share subjects", pairs, "")


def _of(fold: int | None) -> str:
    return "" if fold is None else f" of fold {fold}"


def _get(lists: dict[tuple[str, int | None], set[str]], split: str, fold: int | None) -> set[str]:
    return lists.get((split, fold)) or lists.get((split, None)) or set()


def _told(name: str, text: str, shared: dict[str, set[str]], remedy: str) -> Iterator[tuple[str, str]]:
    counts = [f"{len(subjects)}{where}" for where, subjects in shared.items() if subjects]
    everyone = sorted(set().union(*shared.values()))
    if counts:
        such = ", ".join(everyone[:_NAMED]) + (", …" if len(everyone) > _NAMED else "")
        yield name, f"{text}: {', '.join(counts)} ({such}){remedy}"
