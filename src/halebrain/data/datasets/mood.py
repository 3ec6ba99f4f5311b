"""MOOD challenge: healthy brains, whole head without face, training part (the test part is not published).

Layout: `brain_train.zip` as unpacked, `brain_train/00000.nii.gz`, whatever lies above it. The toy examples
(`toy`, `toy_label`) are passed over.
"""

from halebrain.core.config import Config
from halebrain.data.datasets.base import SOURCES, Draft, Source
from halebrain.data.datasets.tree import FileTree
from halebrain.io.manifest import ScanRecord


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
    layout = "MOOD's brain_train/00000.nii.gz"

    def __init__(self, settings: MoodSettings | None = None) -> None:
        self.settings = settings or MoodSettings()

    def collect(self, tree: FileTree, draft: Draft) -> None:
        """Add every scan; `brain_train` may be the given folder itself."""
        inside = "" if tree.root.resolve().name == "brain_train" else "brain_train/"
        for path, found in tree.match(rf"{inside}(\d{{5}})\.nii(?:\.gz)?"):
            subject = f"MOOD{found.group(1)}"
            draft.add(ScanRecord(subject, path, self.settings.modality, pathology="healthy"))
