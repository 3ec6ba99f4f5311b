"""BraTS: tumours with their segmentation, in SRI24 space at 1 mm, stripped.

Layouts: 2021, `BraTS2021_00000/BraTS2021_00000_{flair,t1,t1ce,t2,seg}.nii.gz`; 2023 and 2024,
`BraTS-GLI-00000-000/BraTS-GLI-00000-000-{t1n,t1c,t2w,t2f,seg}.nii.gz` (GLI, MEN, MET, PED, SSA alike), where the last
three digits are a **time point of the same patient** (GoAT has none). Patients of 2021 come again in 2023 under other
numbers, which no check by name can see: do not mix the years.
"""

from collections import defaultdict
from pathlib import Path

from halebrain.data.datasets.base import SOURCES, Draft, Source
from halebrain.io.manifest import ScanRecord
from halebrain.io.tree import NIFTI, FileTree, label

_YEAR_2021 = rf"(BraTS\d+_(?:[A-Za-z]+_)?\d+)()_(flair|t1ce|t1|t2)({NIFTI})"
_YEAR_2023 = rf"(BraTS-[A-Za-z]+-\d+)(?:-(\d+))?-(t1n|t1c|t2w|t2f)({NIFTI})"
_MODALITIES = {
    **{"flair": "FLAIR", "t1": "T1w", "t1ce": "T1ce", "t2": "T2w"},
    **{"t2f": "FLAIR", "t1n": "T1w", "t1c": "T1ce", "t2w": "T2w"},
}
"""The publisher's word for each contrast, as BIDS has it; "T1ce", T1 with contrast agent, is never taken for T1w."""
_EXPECTED = ("T1w", "T1ce", "T2w", "FLAIR")


@SOURCES.register("brats")
class BratsSource(Source):
    """Reads the four contrasts of every case; any label above 0 of the segmentation is lesion."""

    layout = "BraTS cases (BraTS2021_00000/BraTS2021_00000_flair.nii.gz or BraTS-GLI-00000-000/…-000-t2f.nii.gz)"

    def collect(self, tree: FileTree, draft: Draft) -> None:
        """Add every scan; report the cases that lack a contrast or the segmentation."""
        found_in: dict[Path, set[str]] = defaultdict(set)
        unannotated: set[Path] = set()
        for pattern, joint in ((_YEAR_2021, "_"), (_YEAR_2023, "-")):
            for path, found in tree.match(pattern):
                patient, session, contrast, suffix = found.groups()
                case = path.parent / path.name.removesuffix(f"{joint}{contrast}{suffix}")
                lesion = tree.image(case.with_name(f"{case.name}{joint}seg"), ending=suffix)
                found_in[case].add(_MODALITIES[contrast])
                if lesion is None:
                    unannotated.add(case)
                record = ScanRecord(
                    subject=label(patient),
                    image=path,
                    modality=_MODALITIES[contrast],
                    session=session or None,
                    lesion=lesion,
                    pathology="tumour",
                )
                draft.add(record)
        for case in sorted(found_in):
            lacking = [modality for modality in _EXPECTED if modality not in found_in[case]]
            if lacking:
                draft.report(case.name, f"no {', '.join(lacking)}")
        if found_in and unannotated == set(found_in):
            draft.report("segmentations", "no case has one, as in the publisher's validation set")
            return
        for case in sorted(unannotated):
            draft.report(case.name, "no segmentation; its scans are listed without a lesion")
