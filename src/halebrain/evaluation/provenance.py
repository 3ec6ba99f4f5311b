"""What the figures of an evaluation come from: model, scans, threshold, grid and seed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from halebrain.evaluation.statistics import INTERVAL

NATIVE_GRID = "native, original labels"
WORKING_GRID = "working grid, resampled labels"
REFERENCE_GRID = "native (of the references)"


@dataclass(frozen=True, kw_only=True)
class EvaluationProvenance:
    """What an evaluation was made of; `None` = does not apply, and is not written.

    Args:
        grid: Where voxels are counted: `NATIVE_GRID`, `WORKING_GRID` or `REFERENCE_GRID`.
        seed: Of the model and of the bootstrap.
        model_sha256: Hash of the model.
        adapted_from: Hash of the model that was adapted.
        identity: Hash of all that an adaptation depends on.
        manifest_sha256: Fingerprint of the scans.
        scans: How the scans of an adaptation were chosen.
        predictions: Name and hash of each file, where folders are compared.
        references: The same of the references.
        options: How these files were read.
        region: Where voxels count in them.
        threshold: Value and name, or these by modality; of an adaptation the values of both versions.
        levels: Noise levels of the reconstructions.
        min_lesion_mm3: Smallest connected component in the masks.
        atlas_scans: Modality → number of healthy scans behind its atlas.
        protocol: "behrendt2024", where its figures are stated.
        notes: What was done to bring files together.
        failed: Scan → why it could not be scored.
        flagged: Scan → its quality flags; its figures count all the same.
        versions: Of HaleBrain and the libraries.
    """

    grid: str
    seed: int
    model_sha256: str | None = None
    adapted_from: str | None = None
    identity: str | None = None
    manifest_sha256: str | None = None
    scans: str | None = None
    predictions: Sequence[Mapping[str, str]] | None = None
    references: Sequence[Mapping[str, str]] | None = None
    options: Mapping[str, object] | None = None
    region: str | None = None
    threshold: Mapping[str, object] | None = None
    levels: Sequence[object] | None = None
    min_lesion_mm3: float | None = None
    atlas_scans: Mapping[str, int] | None = None
    protocol: str | None = None
    notes: Sequence[str] | None = None
    failed: Mapping[str, str] | None = None
    flagged: Mapping[str, Sequence[str]] | None = None
    versions: Mapping[str, str] | None = None

    def as_json(self) -> dict[str, object]:
        """Return what applies, with the meaning of the intervals."""
        return {name: value for name, value in asdict(self).items() if value is not None} | {"interval": INTERVAL}
