"""From a preprocessed scan to its findings: maps, anomaly mask, lesion table. The core of `detect`."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from halebrain.core.about import NOTICE, versions
from halebrain.core.mask import to_mask
from halebrain.core.provenance import Provenance
from halebrain.core.types import Lesion, MaskArray, ScanResult, Volume
from halebrain.inference.lesions import lesion_table, total_ml
from halebrain.inference.predictor import Predictor, WorkingMaps
from halebrain.inference.regions import regions_are_known
from halebrain.preprocessing.pipeline import WorkingScan


@dataclass(frozen=True)
class Detection:
    """What was found in one scan.

    Args:
        result: Maps on the native grid.
        scan: The scan on the working grid.
        maps: Maps on the working grid.
        mask: Anomaly mask on the native grid, inside the brain.
        lesions: The connected components of the mask, largest first.
    """

    result: ScanResult
    scan: WorkingScan
    maps: WorkingMaps
    mask: MaskArray
    lesions: list[Lesion]

    def provenance(self, about: Provenance) -> Provenance:
        """Return a provenance with what the scan went through and what came of it."""
        rows = [tuple(row) for row in self.scan.template_to_native.tolist()]
        return replace(
            about,
            steps=self.scan.steps,
            qc=self.scan.qc,
            template_to_native=(rows[0], rows[1], rows[2], rows[3]),
            n_lesions=len(self.lesions),
            lesion_volume_ml=total_ml(self.lesions),
            notice=NOTICE,
        )


def detect_anomalies(
    predictor: Predictor,
    volume: Volume,
    scan: WorkingScan,
    *,
    threshold: float,
    min_lesion_mm3: float,
    modality: str | None = None,
    progress: Callable[[], None] | None = None,
) -> Detection:
    """Run the model on a preprocessed scan and apply the threshold.

    Args:
        predictor: The model.
        volume: The scan on its native grid.
        scan: The preprocessed scan.
        threshold: A voxel is marked where its score ≥ this, in (0, 1].
        min_lesion_mm3: Smaller components are removed; 0 = keep all.
        modality: Contrast of the scan, a BIDS suffix; `None` = inferred from the image.
        progress: Called after each level and draw.

    Raises:
        DataError: No slice shows enough brain.
    """
    result, scan, maps = predictor.predict_scan(volume, scan, modality=modality, progress=progress)
    regions = regions_are_known(predictor.preprocessor.config.space, scan.qc)
    how = {"threshold": threshold, "min_lesion_mm3": min_lesion_mm3}
    return call_anomalies(result, scan, maps, **how, regions=regions)


def call_anomalies(
    result: ScanResult,
    scan: WorkingScan,
    maps: WorkingMaps,
    *,
    threshold: float,
    min_lesion_mm3: float,
    regions: bool = False,
) -> Detection:
    """Apply a threshold to existing maps; arguments as for `detect_anomalies`.

    With `regions`, the lesion table names the approximate region of each component in the MNI template.
    """
    mask = result.brain_mask & to_mask(
        result.score, threshold=threshold, min_lesion_mm3=min_lesion_mm3, voxel_mm3=scan.native.voxel_mm3
    )
    lesions = lesion_table(mask, result.score, result.affine, scan.template_to_native, regions=regions)
    return Detection(result, scan, maps, mask, lesions)


def smallest_lesion_mm3(predictor: Predictor, wanted: float | None) -> float:
    """Return the volume below which a component is removed: as requested, else the model's setting."""
    return predictor.postprocessing.min_lesion_mm3 if wanted is None else wanted


def describe_model(predictor: Predictor) -> Provenance:
    """Return what the provenance of every scan states of the model, its settings and the software."""
    return Provenance(
        brain=predictor.preprocessor.config.brain,
        model_sha256=predictor.bundle.sha256,
        seed=predictor.seed,
        draws=predictor.draws,
        levels=predictor.levels,
        precision=predictor.precision,
        versions=versions(),
        device=str(predictor.device),
        model=predictor.bundle.name,
        space=predictor.preprocessor.config.space,
        method=predictor.method(),
    )
