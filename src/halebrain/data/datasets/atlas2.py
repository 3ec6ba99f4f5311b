"""ATLAS v2.0: chronic stroke on T1w, whole head, registered to the template that HaleBrain works on.

Layout: release 2.0 as unpacked, `Training/R001/sub-r001s001/ses-1/anat/
sub-r001s001_ses-1_space-MNI152NLin2009aSym_{T1w,label-L_desc-T1lesion_mask}.nii.gz`; the masks of `Testing` are not
published. The publisher's metadata (20220425) holds lesions and scanners, no age or sex, and is not read.
"""

from halebrain.core.types import TEMPLATE_SPACE
from halebrain.data.datasets.base import SOURCES, Draft, Source
from halebrain.io.manifest import ScanRecord
from halebrain.io.tree import NIFTI, FileTree

_SCAN = rf"(sub-(r(\d+)s\d+)_ses-([A-Za-z0-9]+)_space-{TEMPLATE_SPACE})_T1w{NIFTI}"


@SOURCES.register("atlas2")
class Atlas2Source(Source):
    """Reads every T1w scan; its cohort (R001) is the site. Brains are not extracted."""

    layout = f"ATLAS v2.0 (Training/R001/sub-r001s001/ses-1/anat/sub-r001s001_ses-1_space-{TEMPLATE_SPACE}_T1w.nii.gz)"

    def collect(self, tree: FileTree, draft: Draft) -> None:
        """Add every scan; report those outside `Testing` that lack their mask."""
        for path, found in tree.match(_SCAN):
            stem, subject, cohort, session = found.groups()
            lesion = tree.image(path.with_name(f"{stem}_label-L_desc-T1lesion_mask"))
            if lesion is None and "Testing" not in path.parts:
                draft.report(stem, "no lesion mask; the scan is listed without one")
            draft.add(
                ScanRecord(
                    subject=subject,
                    image=path,
                    modality="T1w",
                    session=session,
                    lesion=lesion,
                    space=TEMPLATE_SPACE,
                    pathology="stroke",
                    site=f"R{cohort}",
                )
            )
