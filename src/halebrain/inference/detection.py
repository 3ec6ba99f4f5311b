"""From a preprocessed scan to its findings: maps, anomaly mask, lesion table. The core of `detect`."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from halebrain.core.about import NOTICE, versions
from halebrain.core.mask import Cut
from halebrain.core.provenance import Provenance
from halebrain.core.types import Lesion, MaskArray, ScanResult, Volume
from halebrain.inference.lesions import mark_lesions, total_ml
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
    cut: Cut,
    contrast: str | None,
    *,
    progress: Callable[[], None] | None = None,
) -> Detection:
    """Run the model on a preprocessed scan and apply the threshold.

    Args:
        predictor: The model.
        volume: The scan on its native grid.
        scan: The preprocessed scan.
        cut: A voxel is marked where its score reaches the threshold, in (0, 1]; smaller components are removed.
        contrast: Contrast of the scan, a BIDS suffix; `None` = not known.
        progress: Called after each level and draw.

    Raises:
        DataError: No slice shows enough brain.
    """
    result, maps = predictor.predict_scan(volume, scan, contrast, progress=progress)
    regions = regions_are_known(predictor.preprocessor.config.space, scan.qc)
    return Detection(result, scan, maps, *mark_lesions(result, cut, scan.template_to_native, regions=regions))


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
