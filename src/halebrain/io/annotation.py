"""The lesion mask of a row of a manifest, and that a healthy person has none."""

from halebrain.core.errors import DataError
from halebrain.core.types import MaskArray, Volume
from halebrain.core.wording import counted
from halebrain.io.manifest import ScanRecord
from halebrain.io.volume import read_mask


def read_lesion(record: ScanRecord, volume: Volume, notes: list[str] | None = None) -> MaskArray | None:
    """Return the lesion mask of a scan on its grid, bool; `None` where the row names none.

    `notes` receives what was assumed on reading it.

    Raises:
        DataError: The scan is declared healthy, and its mask is not empty.
    """
    if record.lesion is None:
        return None
    lesion = read_mask(record.lesion, volume, notes)
    if record.is_healthy and lesion.any():
        raise lesion_of_a_healthy_scan(record, int(lesion.sum()))
    return lesion


def lesion_of_a_healthy_scan(record: ScanRecord, marked: int) -> DataError:
    """Return the refusal of a mask with lesion of a scan that is declared healthy."""
    return DataError(
        "the lesion mask of a healthy scan must be empty",
        received=counted(marked, "voxel"),
        where=record.lesion or record.image,
        remedy='write the disease under "pathology", or leave "lesion" empty',
    )
