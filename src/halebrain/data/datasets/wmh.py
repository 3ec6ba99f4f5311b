"""WMH challenge 2017: white-matter hyperintensities on FLAIR and T1, whole head without face, thick slices.

Layouts: the challenge's archives, `Utrecht/0/{pre,orig}/{FLAIR,T1}.nii.gz` with `Utrecht/0/wmh.nii.gz` (as well
`Singapore/50`, `Amsterdam/GE3T/100`), and DataverseNL's of 2022 (doi:10.34894/AECRSD), the same below `training/` and
`test/`. Label 1 is WMH, label 2 other pathology: both are what a healthy brain does not show, so both count as lesion
here, while the challenge's own scores leave label 2 out. Further observers (`additional_annotations`) are passed over.
"""

from typing import Literal

from halebrain.core.config import Config
from halebrain.data.datasets.base import SOURCES, Draft, Source
from halebrain.io.manifest import ScanRecord
from halebrain.io.tree import NIFTI, FileTree, label

_MODALITIES = {"FLAIR": "FLAIR", "T1": "T1w"}
_SPLITS = {"training": "train", "test": "test"}


class WmhSettings(Config):
    """Selection of scans.

    Args:
        part: "pre" = bias-corrected, "orig" = as acquired; T1 is registered to FLAIR in both.
        keep_split: Whether the publisher's `training` and `test` become "train" and "test".
    """

    part: Literal["pre", "orig"] = "pre"
    keep_split: bool = False


@SOURCES.register("wmh")
class WmhSource(Source):
    """Reads FLAIR and T1 of every patient; the scanner's folder is the site and part of the subject's name."""

    Settings = WmhSettings
    settings: WmhSettings
    layout = "the WMH challenge (Utrecht/0/pre/FLAIR.nii.gz beside Utrecht/0/wmh.nii.gz)"

    def collect(self, tree: FileTree, draft: Draft) -> None:
        """Add every scan; report the patients that lack a contrast or the mask."""
        found_of: dict[str, set[str]] = {}
        for path, found in tree.match(rf"([^/]+)/(\d+)/{self.settings.part}/(FLAIR|T1){NIFTI}"):
            scanner, number, contrast = found.groups()
            patient = path.parents[1]
            lesion = tree.image(patient / "wmh")
            name = tree.relative(patient)
            if name not in found_of and lesion is None:
                draft.report(name, "no wmh.nii.gz; its scans are listed without a lesion")
            found_of.setdefault(name, set()).add(contrast)
            splits = [_SPLITS[part] for part in path.relative_to(tree.root).parts if part in _SPLITS]
            draft.add(
                ScanRecord(
                    subject=f"{label(scanner)}{number}",
                    image=path,
                    modality=_MODALITIES[contrast],
                    lesion=lesion,
                    split=splits[0] if splits and self.settings.keep_split else None,
                    pathology="wmh",
                    site=scanner,
                )
            )
        for name, contrasts in found_of.items():
            for contrast in sorted(set(_MODALITIES) - contrasts):
                draft.report(name, f"no {contrast}")
