"""Data sets as their publishers share them: one table each, and the rules that no pattern can express."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from halebrain.core.config import Config
from halebrain.core.types import TEMPLATE_SPACE
from halebrain.data.datasets.base import SOURCES, Draft
from halebrain.data.datasets.patterns import About, Found, Groups, PatternSource
from halebrain.data.datasets.tables import age_and_sex, column, parse_age, read_rows, read_sheet
from halebrain.io.tables import Row
from halebrain.io.tree import NIFTI, FileTree


@SOURCES.register("atlas2")
class Atlas2Source(PatternSource):
    """ATLAS v2.0: chronic stroke on T1w, whole head, registered to the template that HaleBrain works on.

    Release 2.0 as unpacked; the masks of `Testing` are not published. The cohort (R001) is the site. The publisher's
    metadata (20220425) holds lesions and scanners, no age or sex, and is not read.
    """

    layout = f"ATLAS v2.0 (Training/R001/sub-r001s001/ses-1/anat/sub-r001s001_ses-1_space-{TEMPLATE_SPACE}_T1w.nii.gz)"
    scans = (
        r"(?P<case>sub-(?P<subject>r(?P<cohort>\d+)s\d+)_ses-(?P<session>[A-Za-z0-9]+)"
        rf"_space-{TEMPLATE_SPACE})_(?P<contrast>T1w){NIFTI}",
    )
    site = "R{cohort}"
    pathology = "stroke"
    space = TEMPLATE_SPACE
    lesion = ("{case}_label-L_desc-T1lesion_mask",)
    unannotated = "no lesion mask; the scan is listed without one"

    def _report(self, found: Sequence[Found], draft: Draft) -> None:
        super()._report([scan for scan in found if "Testing" not in scan.record.image.parts], draft)


@SOURCES.register("brats")
class BratsSource(PatternSource):
    """BraTS: tumours with their segmentation, in SRI24 space at 1 mm, stripped.

    Names of 2021, `BraTS2021_00000_flair`, and of 2023 and 2024, `BraTS-GLI-00000-000-t2f` (GLI, MEN, MET, PED, SSA
    alike), where the last three digits are a **time point of the same patient** (GoAT has none). Any label above 0 is
    lesion. Patients of 2021 come again in 2023 under other numbers, which no check by name can see: do not mix the
    years.
    """

    layout = "BraTS cases (BraTS2021_00000/BraTS2021_00000_flair.nii.gz or BraTS-GLI-00000-000/…-000-t2f.nii.gz)"
    scans = (
        r"(?P<case>(?P<subject>BraTS\d+_(?:[A-Za-z]+_)?\d+))(?P<joint>_)"
        rf"(?P<contrast>flair|t1ce|t1|t2)(?P<ending>{NIFTI})",
        r"(?P<case>(?P<subject>BraTS-[A-Za-z]+-\d+)(?:-(?P<session>\d+))?)(?P<joint>-)"
        rf"(?P<contrast>t1n|t1c|t2w|t2f)(?P<ending>{NIFTI})",
    )
    pathology = "tumour"
    lesion = ("{case}{joint}seg",)
    expected = ("T1w", "T1ce", "T2w", "FLAIR")
    unannotated = "no segmentation; its scans are listed without a lesion"
    none_annotated = "no case has one, as in the publisher's validation set"


@SOURCES.register("ixi")
class IxiSource(PatternSource):
    """IXI: some 600 healthy adults from three London hospitals, whole head.

    brain-development.org's archives as unpacked, `IXI-T1`, `IXI-T2` and `IXI-PD`, beside them `IXI.xls` or the same
    saved as `IXI.csv` for age and sex. The table lists some people twice, a few of them with two ages. Angiograms and
    diffusion are passed over; the hospital is the site.
    """

    layout = "IXI's scans as published (IXI-T1/IXI002-Guys-0828-T1.nii.gz)"
    scans = (rf"(?P<subject>IXI\d{{3}})-(?P<site>Guys|HH|IOP)-\d+-(?P<contrast>T1|T2|PD){NIFTI}",)
    site = "{site}"
    pathology = "healthy"

    def _about(self, tree: FileTree, draft: Draft) -> About:
        people: dict[str, list[Row]] = defaultdict(list)
        for row in _ixi_rows(tree, draft):
            number = column(row, "IXI_ID").removeprefix("IXI").removesuffix(".0")
            if number.isdigit():
                people[f"IXI{int(number):03d}"].append(row)
        conflicting: set[str] = set()

        def person(path: Path, groups: Groups) -> dict[str, Any]:
            subject, rows = groups["subject"], people.get(groups["subject"], [])
            found = age_and_sex(rows)
            ages = [age for row in rows if (age := parse_age(column(row, "age")))]
            if found["age"] is None and ages and subject not in conflicting:
                conflicting.add(subject)
                draft.report(subject, f"two ages, {' and '.join(f'{age:g}' for age in ages)}; its age is left out")
            return found

        return person


def _ixi_rows(tree: FileTree, draft: Draft) -> list[Row]:
    tables = [path for path, _ in tree.match(r"[^/]*IXI[^/]*\.csv")]
    if tables:
        return [row for path in tables for row in read_rows(path)]
    rows: list[Row] = []
    for path, _ in tree.match(r"IXI\.xls"):
        sheet = read_sheet(path)
        if sheet is None:
            problem = "cannot be read, ages and sexes are left out; save it as IXI.csv or pip install 'halebrain[ixi]'"
            draft.report(tree.relative(path), problem)
        rows += sheet or []
    return rows


class MoodSettings(Config):
    """What the scans are.

    Args:
        modality: Name of their contrast; the publisher gives none beside the files.
    """

    modality: str = "T2w"


@SOURCES.register("mood")
class MoodSource(PatternSource):
    """MOOD challenge: healthy brains, whole head without face, training part (the test part is not published).

    `brain_train.zip` as unpacked, whatever lies above it. The toy examples (`toy`, `toy_label`) are passed over.
    """

    Settings = MoodSettings
    settings: MoodSettings
    layout = "MOOD's brain_train/00000.nii.gz"
    subject = "MOOD{number}"
    pathology = "healthy"

    @classmethod
    def with_modality(cls, settings: dict[str, Any], modality: str) -> dict[str, Any]:
        """Return the settings in which that is the contrast of the scans, as their publisher gives none."""
        return {"modality": modality, **settings}

    def _patterns(self, tree: FileTree) -> tuple[str, ...]:
        # The folder may be the given one itself.
        inside = "" if tree.root.resolve().name == "brain_train" else "brain_train/"
        return (rf"{inside}(?P<number>\d{{5}}){NIFTI}",)

    def _groups(self, tree: FileTree, path: Path, groups: Groups) -> Groups:
        return {**groups, "modality": self.settings.modality}


class MslubSettings(Config):
    """Which of the versions of each scan is meant.

    Args:
        version: "coregistered" = on the grid of FLAIR, bias-corrected, with a brain mask; "raw" = as acquired, where
            only FLAIR has lesion and brain mask; "MNI" = open_ms_data's, stripped, in MNI space.
    """

    version: Literal["coregistered", "raw", "MNI"] = "coregistered"


_MSLUB_CONTRAST = r"(?P<contrast>FLAIR|T1WKS|T1POST|T1W|T1|T2W|T2)(?:_N4_[^/]*regtoMNI)?"
_MSLUB_MNI_LESION = "GOLD_STANDARD_N4_noneck_reduced_winsor_regtoFLAIR_regtoMNI"


@SOURCES.register("mslub")
class MslubSource(PatternSource):
    """MSLUB: multiple sclerosis, 30 patients with lesions agreed on by three raters, and a set of pairs in time.

    The laboratory's archives (doi:10.1007/s12021-017-9348-7), `patient01/patient01_FLAIR` with
    `patient01_consensus_gt`, `patient01_brainmask` and `patient01/raw/`; and their mirror open_ms_data, which has
    `{coregistered,raw,MNI}/patient01/{FLAIR,…,brainmask,consensus_gt}`. Age and sex from `patient_info.csv`.
    Longitudinal patients (`study1_FLAIR`) are other people under the same numbers; their mask is of *changes*, so they
    have no lesion here.
    """

    Settings = MslubSettings
    settings: MslubSettings
    layout = "MSLUB's patients (patient01/patient01_FLAIR.nii.gz or coregistered/patient01/FLAIR.nii.gz)"
    scans = (
        r"(?:longitudinal_)?patient(?P<number>\d+)(?:_raw|_MNI)?/(?P<inner>raw/)?(?:patient\d+_)?"
        rf"(?:study(?P<session>\d)_)?{_MSLUB_CONTRAST}{NIFTI}",
    )
    site = "Ljubljana"
    pathology = "ms"
    # In the laboratory's archives they lie above `raw`.
    lesion = tuple(
        f"{{above}}{name}{stem}" for stem in ("consensus_gt", _MSLUB_MNI_LESION) for name in ("{patient}_", "")
    )
    brain_mask = ("{above}{patient}_brainmask", "{above}brainmask")

    def collect(self, tree: FileTree, draft: Draft) -> None:
        """Add every scan of the version asked for; report the patients without mask or lesion."""
        super().collect(tree, draft)
        others = {_mslub_version(tree, path) for path, _ in tree.match(self.scans[0])}
        if others and not draft.records():
            draft.report("version", f"the folder holds {' and '.join(sorted(others))}, not {self.settings.version}")

    def _groups(self, tree: FileTree, path: Path, groups: Groups) -> Groups | None:
        if _mslub_version(tree, path) != self.settings.version:
            return None
        patient = f"patient{int(groups['number']):02d}"
        subject, above = f"long{patient}" if groups["session"] else patient, "../" if groups["inner"] else ""
        return {**groups, "patient": patient, "subject": subject, "above": above}

    def _masks(self, groups: Groups) -> dict[str, tuple[str, ...]]:
        has_masks = not groups["session"] and (self.settings.version != "raw" or groups["contrast"] == "FLAIR")
        return super()._masks(groups) if has_masks else {}

    def _about(self, tree: FileTree, draft: Draft) -> About:
        tables: dict[Path, dict[int, Row]] = defaultdict(dict)
        for path, _ in tree.match(r"patient_info\.csv"):
            for row in read_rows(path):
                digits = "".join(filter(str.isdigit, column(row, "patient_id", "patient", "id")))
                if digits:
                    tables[path.parent][int(digits)] = row

        def person(path: Path, groups: Groups) -> dict[str, Any]:
            nearest = next((tables[folder] for folder in path.parents if folder in tables), {})
            return age_and_sex([nearest.get(int(groups["number"]), {})])

        return person

    def _report(self, found: Sequence[Found], draft: Draft) -> None:
        needed = ("lesion", "brain_mask") if self.settings.version == "coregistered" else ("lesion",)
        lacking = {
            (scan.groups["patient"], kind.replace("_", " "))
            for scan in found
            for kind in needed
            if kind in self._masks(scan.groups) and getattr(scan.record, kind) is None
        }
        for patient, what in sorted(lacking):
            draft.report(patient, f"no {what}; its scans are listed without one")


def _mslub_version(tree: FileTree, path: Path) -> str:
    if "regtoMNI" in path.name:
        return "MNI"
    parts = (*path.relative_to(tree.root).parts, tree.root.name)
    return "raw" if any(part == "raw" or part.endswith("_raw") for part in parts) else "coregistered"


class WmhSettings(Config):
    """Selection of scans.

    Args:
        part: "pre" = bias-corrected, "orig" = as acquired; T1 is registered to FLAIR in both.
        keep_split: Whether the publisher's `training` and `test` become "train" and "test".
    """

    part: Literal["pre", "orig"] = "pre"
    keep_split: bool = False


@SOURCES.register("wmh")
class WmhSource(PatternSource):
    """WMH challenge 2017: white-matter hyperintensities on FLAIR and T1, whole head without face, thick slices.

    The challenge's archives, `Utrecht/0/{pre,orig}/{FLAIR,T1}` with `Utrecht/0/wmh` (as well `Singapore/50`,
    `Amsterdam/GE3T/100`), and DataverseNL's of 2022 (doi:10.34894/AECRSD), the same below `training/` and `test/`. The
    scanner's folder is the site and part of the subject's name. Label 1 is WMH, label 2 other pathology: both are what
    a healthy brain does not show, so both count as lesion here, while the challenge's own scores leave label 2 out.
    Further observers (`additional_annotations`) are passed over.
    """

    Settings = WmhSettings
    settings: WmhSettings
    layout = "the WMH challenge (Utrecht/0/pre/FLAIR.nii.gz beside Utrecht/0/wmh.nii.gz)"
    subject = "{scanner}{number}"
    site = "{scanner}"
    pathology = "wmh"
    lesion = ("../wmh",)
    expected = ("FLAIR", "T1")
    unannotated = "no wmh.nii.gz; its scans are listed without a lesion"

    def _patterns(self, tree: FileTree) -> tuple[str, ...]:
        return (rf"(?P<scanner>[^/]+)/(?P<number>\d+)/{self.settings.part}/(?P<contrast>FLAIR|T1){NIFTI}",)

    def _groups(self, tree: FileTree, path: Path, groups: Groups) -> Groups:
        return {**groups, "case": tree.relative(path.parents[1])}

    def _about(self, tree: FileTree, draft: Draft) -> About:
        names = {"training": "train", "test": "test"} if self.settings.keep_split else {}

        def split(path: Path, groups: Groups) -> dict[str, Any]:
            return {"split": next((names[part] for part in path.relative_to(tree.root).parts if part in names), None)}

        return split
