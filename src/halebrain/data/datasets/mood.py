"""MOOD challenge: healthy brains, whole head without face, training part (the test part is not published).

Layout: `brain_train.zip` as unpacked, `brain_train/00000.nii.gz`, whatever lies above it. The toy examples
(`toy`, `toy_label`) are passed over.
"""

from typing import Any

from halebrain.core.config import Config
from halebrain.data.datasets.base import SOURCES, Draft, Source
from halebrain.io.manifest import ScanRecord
from halebrain.io.tree import NIFTI, FileTree


class MoodSettings(Config):
    """What the scans are.

    Args:
        modality: Name of their contrast; the publisher gives none beside the files.
    """

    modality: str = "T2w"


@SOURCES.register("mood")
class MoodSource(Source):
    """Reads every training scan, all of them healthy."""

    Settings = MoodSettings
    settings: MoodSettings
    layout = "MOOD's brain_train/00000.nii.gz"

    @classmethod
    def with_modality(cls, settings: dict[str, Any], modality: str) -> dict[str, Any]:
        """Return the settings in which that is the contrast of the scans, as their publisher gives none."""
        return {"modality": modality, **settings}

    def collect(self, tree: FileTree, draft: Draft) -> None:
        """Add every scan; `brain_train` may be the given folder itself."""
        inside = "" if tree.root.resolve().name == "brain_train" else "brain_train/"
        for path, found in tree.match(rf"{inside}(\d{{5}}){NIFTI}"):
            subject = f"MOOD{found.group(1)}"
            draft.add(ScanRecord(subject, path, self.settings.modality, pathology="healthy"))
