"""Output files of a detection: maps with BIDS sidecars, lesion table, provenance; all of them or none."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from halebrain.core.about import NOTICE
from halebrain.core.document import read_object
from halebrain.core.errors import DataError
from halebrain.core.files import write_text, write_together
from halebrain.core.parallel import map_threads
from halebrain.core.provenance import ChosenThreshold, Provenance
from halebrain.core.types import SCORE_STEP, FloatArray, Lesion, MaskArray, ScanResult
from halebrain.inference.filling import Filling
from halebrain.inference.lesions import COLUMNS, lesions_tsv
from halebrain.io.bids import parse_name
from halebrain.io.nifti import write_volume

RAW = "raw"
"""Name of the source data set in the BIDS URIs of a derivative."""
_MAPS: dict[tuple[str, str], dict[str, Any]] = {
    ("anomaly", "probseg"): {"Description": "Anomaly score, 0 to 1, higher = more anomalous, 0 outside the brain."},
    ("segmenter", "probseg"): {"Description": "Probability of the segmenter alone, 0 to 1, mean over noise levels."},
    ("anomaly", "mask"): {"Description": "Voxels where the anomaly score reaches the threshold.", "Type": "Lesion"},
    ("brain", "mask"): {"Description": "Brain mask; the anomaly score is defined in it.", "Type": "Brain"},
    ("pseudohealthy", ""): {
        "Description": "Pseudo-healthy reconstruction, in the intensity units of the scan.",
        "SkullStripped": True,
    },
    ("residual", ""): {
        "Description": "Scan minus pseudo-healthy reconstruction, signed, in units of the scan's normalised intensity.",
        "SkullStripped": True,
    },
    ("uncertainty", ""): {
        "Description": "Standard deviation of the anomaly score over noise levels and draws.",
        "SkullStripped": True,
    },
}
"""Description and suffix of each image; an empty suffix is the scan's own."""
_BRAIN_ONLY = ("brain", "mask")
_SUFFIX = re.compile(r"^(?P<base>sub-[a-zA-Z0-9]+.*)_(?P<suffix>[a-zA-Z0-9]+)$")


def as_written(score: FloatArray) -> FloatArray:
    """Return a score in [0, 1] with the values that its file gives back.

    What is marked and measured on them is the same again where a page is made from the file.
    """
    written = np.zeros(score.shape, dtype=np.float32)
    inside = score != 0
    slope = float(np.float32(SCORE_STEP))  # as the header holds it
    written[inside] = np.rint(score[inside].astype(np.float64) / SCORE_STEP) * slope
    return written


def sidecars(provenance: Provenance) -> dict[tuple[str, str], dict[str, Any]]:
    """Return (description, suffix) → sidecar of every image and of the lesion table, as far as the provenance goes."""
    made = {name: {**about, **origin_entries(provenance)} for name, about in _MAPS.items()}
    for name in made:
        if name != _BRAIN_ONLY:
            made[name] |= model_entries(provenance)
    made["anomaly", "mask"] |= threshold_entries(provenance.threshold)
    table: dict[str, Any] = {"Description": "One row for each connected component of the anomaly mask."}
    if (volume := provenance.volume_estimate) is not None:
        table["TotalVolumeMl"] = provenance.lesion_volume_ml
        table["EstimatedTrueVolumeMl"] = volume.value_ml
        table["EstimatedTrueVolumeInterval90Ml"] = [volume.low_ml, volume.high_ml]
    return {**made, ("anomaly", "lesions"): {**COLUMNS, "HaleBrain": table | origin_entries(provenance)}}


def filled_sidecar(provenance: Provenance, filling: Filling) -> dict[str, Any]:
    """Return the sidecar of the lesion-filled scan: what was filled, from which mask, and how."""
    mask: dict[str, object] = {"FilledMaskSHA256": provenance.fill_mask_sha256}
    if not filling.is_given:
        mask = threshold_entries(provenance.threshold)
    return {
        "Description": "The scan with a region filled as healthy tissue; outside it, the scan itself to the last bit.",
        "SkullStripped": filling.is_stripped,
        **origin_entries(provenance),
        **model_entries(provenance),
        "InputSHA256": provenance.input_sha256,
        "BrainMaskSHA256": provenance.brain_mask_sha256,
        "FilledMask": "given" if filling.is_given else "found",
        **mask,
        "MaskVolumeMl": round(filling.mask_ml, 3),
        "FillMarginMm": filling.margin_mm,
        "FilledVolumeMl": round(filling.filled_ml, 3),
        "NotFilledVolumeMl": round(filling.left_out_ml, 3),
        "NoiseStandardDeviation": round(filling.noise, 6),
        "FilledFrom": "surroundings of the hole" if filling.by_holes else "reconstruction",
        "QualityFlags": list(provenance.qc.flags),
    }


def filled_files(
    names: "OutputNames", provenance: Provenance, filling: Filling, more: Mapping[str, object] | None = None
) -> dict[Path, bytes]:
    """Return the lesion-filled scan and its sidecar by final path; `more` are further keys of the sidecar."""
    sidecar = json.dumps({**filled_sidecar(provenance, filling), **(more or {})}, indent=2) + "\n"
    return {names.filled: filling.scan.packed(), names.filled_sidecar: sidecar.encode("utf-8")}


def origin_entries(provenance: Provenance) -> dict[str, object]:
    """Return what a sidecar states of the scan and the software."""
    place, versions = provenance.input_in_dataset, provenance.versions or {}
    uri = None if place is None else f"bids:{RAW}:{place}"
    return _without_none(
        Sources=None if uri is None else [uri],
        SpatialReference=uri or "orig",
        SoftwareName="HaleBrain",
        SoftwareVersion=versions.get("halebrain"),
        BrainExtraction=provenance.qc.brain_method,
        Notice=NOTICE,
    )


def model_entries(provenance: Provenance) -> dict[str, object]:
    """Return what a sidecar states of the model and of what was drawn."""
    sha256 = provenance.model_sha256
    return _without_none(
        ModelName=provenance.model,
        # A model has no number; what it is, its hash says.
        ModelVersion=None if sha256 is None else sha256[:12],
        ModelSHA256=sha256,
        NoiseLevels=list(provenance.levels) or None,
        Draws=provenance.draws,
        Seed=provenance.seed,
    )


def threshold_entries(threshold: ChosenThreshold | None) -> dict[str, object]:
    """Return what the sidecar of a mask states of the threshold."""
    if threshold is None:
        return {}
    return _without_none(
        Threshold=threshold.value,
        ThresholdMethod=threshold.name,
        GrowThreshold=threshold.grow_to,
        MinimumLesionVolumeMm3=threshold.min_lesion_mm3,
    )


def _without_none(**entries: object) -> dict[str, object]:
    return {key: value for key, value in entries.items() if value is not None}


@lru_cache(maxsize=256)
def _named(stem: str, description: str, suffix: str) -> str:
    """Return the name of one file of a scan, without its ending."""
    name = parse_name(stem)
    if name is not None:
        return name.derived(description, suffix or None).stem
    match = _SUFFIX.match(stem)
    base = match["base"] if match else stem
    own = match["suffix"] if match else "image"
    # Two modalities of a subject share a folder, so the modality stays in every name.
    modality = f"_rec-{own}" if match and suffix else ""
    return f"{base}{modality}_desc-{description}_{suffix or own}"


@dataclass(frozen=True)
class OutputNames:
    """Names of one scan's files, in BIDS's manner (`sub-01_FLAIR` → `sub-01_rec-FLAIR_desc-anomaly_mask.nii.gz`)."""

    folder: Path
    stem: str

    def file(self, description: str, suffix: str, ending: str = ".nii.gz") -> Path:
        """Return the path of one file; an empty suffix stands for the scan's own ("FLAIR")."""
        return self.folder / f"{_named(self.stem, description, suffix)}{ending}"

    @property
    def provenance(self) -> Path:
        """The provenance JSON; written last, so its presence marks a complete result."""
        return self.file("anomaly", "provenance", ".json")

    @property
    def segmentation(self) -> Path:
        """The mask as DICOM-SEG, where it is asked for."""
        return self.file("anomaly", "seg", ".dcm")

    @property
    def filled(self) -> Path:
        """The lesion-filled scan, where it is asked for."""
        return self.file("filled", "")

    @property
    def filled_sidecar(self) -> Path:
        """What was filled, and how."""
        return self.file("filled", "", ".json")

    @property
    def mosaic(self) -> Path:
        """The picture."""
        return self.file("anomaly", "mosaic", ".png")

    @property
    def page(self) -> Path:
        """The page with the viewer."""
        return self.file("anomaly", "report", ".html")

    @property
    def display(self) -> Path:
        """The scan as the page shows it, from which `halebrain report` makes the page again."""
        return self.file("anomaly", "display", ".npz")

    @property
    def review(self) -> Path:
        """The table of a reader's decisions on the findings; detection neither writes nor removes it."""
        return self.file("anomaly", "review", ".tsv")

    @property
    def thumbnail(self) -> Path:
        """The small picture that the page of many scans shows."""
        return self.file("anomaly", "thumbnail", ".jpg")

    def promised(self, *, dicom_seg: bool, filled: bool) -> list[Path]:
        """Return every file of a detection, with DICOM-SEG and lesion-filled scan if they were asked for."""
        table = ("anomaly", "lesions")
        files = [self.file(*image) for image in _MAPS] + [self.file(*image, ".json") for image in (*_MAPS, table)]
        files += [self.file(*table, ".tsv"), self.page, self.thumbnail, self.mosaic, self.display, self.provenance]
        files += [self.segmentation] if dicom_seg else []
        return files + ([self.filled, self.filled_sidecar] if filled else [])


REQUESTED = "Requested"
"""Key of the sidecar of a scan that was filled alone (`--fill`), for what it was filled with."""


def replaced_filled(names: OutputNames) -> list[Path]:
    """Return the lesion-filled scan and its sidecar, which belong to a detection and go with it.

    There are none where the scan was filled alone (`--fill`): no detection made it, so it stays.
    """
    try:
        is_alone = REQUESTED in read_object(names.filled_sidecar, "the sidecar of a filled scan", "remove it")
    except (DataError, FileNotFoundError):
        is_alone = False
    return [] if is_alone else [names.filled, names.filled_sidecar]


def page_of(provenance: Path) -> Path:
    """Return the page beside a provenance; it may not be there."""
    return provenance.with_name(provenance.name.removesuffix("provenance.json") + "report.html")


def write_detection(
    names: OutputNames,
    result: ScanResult,
    mask: MaskArray,
    lesions: list[Lesion],
    provenance: Provenance,
    draw: Callable[[], Mapping[Path, bytes]],
    *,
    maps_stay: bool = False,
    threads: int = 1,
) -> list[Path]:
    """Write every file of one scan into `names.folder`, whole or not at all; return the paths.

    `draw` makes more files (the page), by final path, while maps are compressed in other threads. With `maps_stay` the
    maps, which are there, are not written again.
    """

    def write(staging: Path) -> None:
        staged = OutputNames(staging, names.stem)

        def write_drawn() -> None:
            for path, raw in draw().items():
                (staging / path.name).write_bytes(raw)

        tasks = [write_drawn, *_map_writers(staged, result, mask, only_mask=maps_stay)]
        map_threads(lambda task: task(), tasks, threads=threads)
        write_text(staged.file("anomaly", "lesions", ".tsv"), lesions_tsv(lesions))
        for (description, suffix), content in sidecars(provenance).items():
            write_text(staged.file(description, suffix, ".json"), json.dumps(content, indent=2) + "\n")
        write_text(staged.provenance, json.dumps(provenance.to_json(), indent=2) + "\n")

    return write_together(names.provenance, write, earlier=(names.segmentation, *replaced_filled(names)))


def _map_writers(
    names: OutputNames, result: ScanResult, mask: MaskArray, *, only_mask: bool
) -> list[Callable[[], None]]:
    """Return what writes each map, those that take longest first."""

    def writer(
        description: str, suffix: str, data: npt.NDArray[Any], dtype: npt.DTypeLike, scale: float = 1.0
    ) -> Callable[[], None]:
        path, placement = names.file(description, suffix), result.placement
        return partial(write_volume, path, data, result.affine, dtype=dtype, scale=scale, placement=placement)

    of_mask = writer("anomaly", "mask", mask, np.uint8)
    if only_mask:
        return [of_mask]
    return [
        writer("pseudohealthy", "", result.reconstruction, np.float32),
        writer("uncertainty", "", result.uncertainty, np.float32),
        writer("anomaly", "probseg", result.score, np.uint16, SCORE_STEP),
        writer("segmenter", "probseg", result.probability, np.uint16, SCORE_STEP),
        writer("residual", "", result.residual, np.float32),
        writer("brain", "mask", result.brain_mask, np.uint8),
        of_mask,
    ]
