"""The Python API of HaleBrain: `halebrain detect` on images in memory.

`halebrain.detect`, `halebrain.load_model` and `halebrain.Prediction` are these; importing `halebrain` alone loads
none of the heavy libraries.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halebrain.core.errors import UsageError
from halebrain.core.types import Lesion, MaskArray, Volume
from halebrain.inference.cohort import ScanInput
from halebrain.inference.detection import Detection, predictor_settings
from halebrain.inference.predictor import Predictor
from halebrain.io.nifti import make_image
from halebrain.io.volume import mask_of, read_mask, read_volume, stem_of, volume_of
from halebrain.models.bundle import Bundle
from halebrain.models.store import load_model
from halebrain.preprocessing.pipeline import WorkingScan
from halebrain.preprocessing.prepared import open_scan
from halebrain.workflows.detect import find_anomalies, load_detector
from halebrain.workflows.settings import DetectSettings

if TYPE_CHECKING:
    from nibabel import Nifti1Image
    from nibabel.spatialimages import SpatialImage

__all__ = ["Prediction", "detect", "load_model"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Result of `detect`; every image is on the grid of the scan. Research use only.

    Args:
        score: Anomaly score in [0, 1], float32, 0 outside the brain.
        mask: 1 where the score reaches the threshold, uint8.
        reconstruction: Pseudo-healthy scan in the intensity units of the scan, float32.
        residual: Scan minus reconstruction in normalised units, signed, float32.
        probability: The segmenter's probability in [0, 1], float32.
        uncertainty: Standard deviation of the score over levels and draws, float32.
        brain_mask: 1 where the score is defined, uint8.
        lesions: The connected components of the mask, largest first.
        qc: Quality-control figures; "flags" lists the quality flags.
        provenance: Model, threshold, seed, steps and versions that made it; JSON-able.
    """

    score: "Nifti1Image"
    mask: "Nifti1Image"
    reconstruction: "Nifti1Image"
    residual: "Nifti1Image"
    probability: "Nifti1Image"
    uncertainty: "Nifti1Image"
    brain_mask: "Nifti1Image"
    lesions: tuple[Lesion, ...]
    qc: dict[str, Any]
    provenance: dict[str, Any]


def detect(
    image: "SpatialImage | str | os.PathLike[str]",
    *,
    model: "Bundle | str | os.PathLike[str] | None" = None,
    modality: str | None = None,
    brain_mask: "SpatialImage | str | os.PathLike[str] | None" = None,
    brain: str = "auto",
    threshold: float | str = "auto",
    min_lesion_mm3: float | None = None,
    device: str = "auto",
    seed: int = 0,
    draws: int = 1,
) -> Prediction:
    """Detect anomalies in one scan; same results as `halebrain detect`.

    Args:
        image: The scan: a nibabel image, or a path in any format that `halebrain detect` reads.
        model: A loaded model, its path or its name; `None` = the default model.
        modality: Contrast of the scan ("FLAIR"); `None` = from the file name, else inferred from the image.
            It selects the threshold.
        brain_mask: Brain mask on the grid of the scan; `None` = extract the brain.
        brain: Brain extraction: auto, stripped, synthstrip, hdbet, deepbet or atlas.
        threshold: "auto", a number above 0, or the name of a stored threshold ("fpr:0.01").
        min_lesion_mm3: Smaller components are removed; `None` = the model's setting.
        device: auto, cpu, cuda, cuda:N or mps.
        seed: Random seed.
        draws: Noise samples per level.

    Raises:
        HalebrainError: As the command; `exit_code` gives the kind.
    """
    if brain_mask is not None and brain != "auto":
        raise UsageError("brain and brain_mask exclude each other", received="both", remedy="remove one of them")
    settings = DetectSettings(
        model=None if model is None or isinstance(model, Bundle) else Path(model),
        threshold=str(threshold),
        modality=modality or "auto",
        min_lesion_mm3=min_lesion_mm3,
        brain=brain,
        seed=seed,
        draws=draws,
        device=device,
    )
    detector = load_detector(settings, model if isinstance(model, Bundle) else None)
    notes: list[str] = []
    volume, working = _open(detector.predictor, image, brain_mask, notes)
    path = _path_of(image)
    scan = ScanInput(path or Path(), "" if path is None else stem_of(path))
    found = find_anomalies(detector, volume, working, scan, notes=notes)
    provenance = {
        "input": Path(volume.name).name,
        "content_sha256": working.content.hex(),
        "threshold": found.threshold,
        **found.scan_level,
        **predictor_settings(detector.predictor),
        "input_notes": notes,
        **detector.about(),
        **found.detection.provenance(),
    }
    return _prediction(found.detection, provenance)


def _open(predictor: Predictor, image: Any, brain_mask: Any, notes: list[str]) -> tuple[Volume, WorkingScan]:
    """Return the scan on its native and on the working grid; a prepared file is used unchanged."""
    path = _path_of(image)
    volume = volume_of(image) if path is None else read_volume(path)
    notes += volume.notes
    mask_path = None if brain_mask is None else _path_of(brain_mask)
    if path is not None and (brain_mask is None or mask_path is not None):
        return volume, open_scan(predictor.preprocessor, volume, path, brain_mask=mask_path, notes=notes)
    mask: MaskArray | None = None
    if brain_mask is not None:
        mask = mask_of(brain_mask, volume, notes=notes) if mask_path is None else read_mask(mask_path, volume, notes)
    return volume, predictor.preprocessor.run(volume, brain_mask=mask)


def _path_of(image: Any) -> Path | None:
    """Return the path that stands for an image; `None` where it is an image already."""
    if isinstance(image, str | os.PathLike):
        return Path(image)
    if not hasattr(image, "dataobj"):
        raise UsageError(
            "an image must be a path or a nibabel image",
            received=type(image).__name__,
            remedy="pass nibabel.load(path), or the path",
        )
    return None


def _prediction(found: Detection, provenance: dict[str, Any]) -> Prediction:
    result = found.result
    placement = result.placement
    maps = {
        name: make_image(getattr(result, name), result.affine, placement=placement)
        for name in ("score", "reconstruction", "residual", "probability", "uncertainty")
    }
    masks = {"mask": found.mask, "brain_mask": result.brain_mask}
    images = maps | {
        name: make_image(mask.astype("uint8"), result.affine, placement=placement) for name, mask in masks.items()
    }
    return Prediction(**images, lesions=tuple(found.lesions), qc=result.qc, provenance=provenance)
