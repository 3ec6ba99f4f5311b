"""Layouts of publishers as tables: patterns of file names, and what each part of a name means."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from halebrain.data.datasets.base import Draft, Source
from halebrain.io.manifest import ScanRecord
from halebrain.io.tree import FileTree, label

Groups = dict[str, str]
"""Parts of a name; "" for those that are not there."""
About = Callable[[Path, Groups], Mapping[str, Any]]
"""Gives further fields of a scan's row: age, sex and split."""


CONTRASTS = {
    **dict.fromkeys(("flair", "t2f"), "FLAIR"),
    **dict.fromkeys(("t1", "t1w", "t1n"), "T1w"),
    **dict.fromkeys(("t1ce", "t1c", "t1wks", "t1post"), "T1ce"),
    **dict.fromkeys(("t2", "t2w"), "T2w"),
    **dict.fromkeys(("pd",), "PDw"),
}
"""Publishers' words, lower case → BIDS suffix; "T1ce", T1 with contrast agent, is never taken for T1w."""


class Found(NamedTuple):
    """A scan that a pattern matched, and the parts of its name."""

    record: ScanRecord
    groups: Groups


class PatternSource(Source):
    """A data set whose publisher names the files. A subclass is its table; methods hold what no pattern can.

    Templates are format strings of the groups of the pattern.

    Attributes:
        scans: A regular expression for each way in which scans are named, from a folder or a file name on. It has the
            group `contrast` (a word of `CONTRASTS`), and `session` and `ending` where names hold them; `case` is the
            name of what belongs together, for problems.
        subject: Template of the subject's label.
        site: Template of the site; "" = unknown.
        pathology: Template of the pathology.
        space: Space of the scans.
        lesion: Templates of the name of the annotation without its ending, from the folder of the scan on; "../" is the
            folder above. The first that is there counts.
        brain_mask: The same for the brain mask.
        expected: The contrasts that every case should have, in words.
        unannotated: The problem of a case without annotation; "" = none.
        none_annotated: The one problem that takes its place where no case has one; "" = each case is named.
    """

    scans: ClassVar[tuple[str, ...]] = ()
    subject: ClassVar[str] = "{subject}"
    site: ClassVar[str] = ""
    pathology: ClassVar[str]
    space: ClassVar[str] = "native"
    lesion: ClassVar[tuple[str, ...]] = ()
    brain_mask: ClassVar[tuple[str, ...]] = ()
    expected: ClassVar[tuple[str, ...]] = ()
    unannotated: ClassVar[str] = ""
    none_annotated: ClassVar[str] = ""

    def collect(self, tree: FileTree, draft: Draft) -> None:
        """Add every scan that a pattern matches, and report what is missing."""
        self.add_scans(tree, draft, self._about(tree, draft))

    def add_scans(self, tree: FileTree, draft: Draft, about: About) -> list[Found]:
        """Add every scan, report what the cases lack, and return the scans."""
        found = []
        for pattern in self._patterns(tree):
            for path, match in tree.match(pattern):
                groups = self._groups(tree, path, match.groupdict(""))
                if groups is not None:
                    found.append(Found(self._record(tree, path, groups, about(path, groups)), groups))
        self._report(found, draft)
        for scan in found:
            draft.add(scan.record)
        return found

    def _patterns(self, tree: FileTree) -> tuple[str, ...]:
        """Return the patterns of the scans; those that depend on a setting or the folder are made here."""
        return self.scans

    def _groups(self, tree: FileTree, path: Path, groups: Groups) -> Groups | None:
        """Return the parts of a name, with further ones for the templates; `None` = it is not a scan that is meant."""
        return groups

    def _masks(self, groups: Groups) -> dict[str, tuple[str, ...]]:
        """Return the templates of each mask that a scan should have."""
        return {"lesion": self.lesion, "brain_mask": self.brain_mask}

    def _about(self, tree: FileTree, draft: Draft) -> About:
        """Return what gives the age and the sex of a subject from the publisher's table, where there is one."""
        return lambda path, groups: {}

    def _report(self, found: Sequence[Found], draft: Draft) -> None:
        """Report the cases that lack a contrast or their annotation."""
        if not self.expected and not self.unannotated:
            return
        cases: dict[tuple[Path, str], list[ScanRecord]] = {}
        for record, groups in found:
            cases.setdefault((record.image.parent, groups["case"]), []).append(record)
        each = not self.none_annotated or any(record.lesion for record, _ in found)
        for (_, case), records in cases.items():
            there = {record.modality for record in records}
            lacking = [word for word in self.expected if CONTRASTS[word.lower()] not in there]
            if lacking:
                draft.report(case, f"no {', '.join(lacking)}")
            if each and not all(record.lesion for record in records):
                draft.report(case, self.unannotated)
        if found and not each:
            draft.report("segmentations", self.none_annotated)

    def _record(self, tree: FileTree, path: Path, groups: Groups, about: Mapping[str, Any]) -> ScanRecord:
        masks = self._masks(groups)
        return ScanRecord(
            subject=label(self.subject.format_map(groups)),
            image=path,
            modality=groups.get("modality") or CONTRASTS[groups["contrast"].lower()],
            session=groups.get("session") or None,
            space=self.space,
            pathology=self.pathology.format_map(groups),
            site=self.site.format_map(groups) or None,
            brain_mask=_beside(tree, path, masks.get("brain_mask", ()), groups),
            lesion=_beside(tree, path, masks.get("lesion", ()), groups),
            **about,
        )


def _beside(tree: FileTree, scan: Path, templates: Sequence[str], groups: Groups) -> Path | None:
    """Return the first mask that is there, with the ending of the scan, else with another one."""
    endings = [groups["ending"]] if groups.get("ending") else []
    candidates = []
    for template in templates:
        folder, name = scan.parent, template.format_map(groups)
        while name.startswith("../"):
            folder, name = folder.parent, name.removeprefix("../")
        candidates += [folder / f"{name}{ending}" for ending in (*endings, ".nii.gz", ".nii")]
    return tree.first(*candidates)
