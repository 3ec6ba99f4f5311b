"""Prepared scans: preprocessed images on disk with their provenance.

A prepared scan is an image on the working grid, its masks, and a JSON beside the image. Training and evaluation
use it unchanged; nothing is registered or filtered twice.
"""

import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from halebrain.core.about import NOTICE
from halebrain.core.errors import DataError
from halebrain.core.files import write_text
from halebrain.core.provenance import ProcessingStep, QualityReport
from halebrain.core.types import TEMPLATE_SPACE, FloatArray, MaskArray, Placement, Volume
from halebrain.io.manifest import ScanRecord
from halebrain.io.nifti import write_volume
from halebrain.io.volume import read_mask, read_volume, stem_of
from halebrain.preprocessing.geometry import Grid
from halebrain.preprocessing.intensity import IntensityRange
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor, WorkingScan

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage

_log = logging.getLogger(__name__)
_MARK = "HaleBrainPrepared"
_FORM = 1
_LABEL = re.compile(r"[\w+-]+")
_AS_WRITTEN = {
    "rule": "the JSON of a prepared scan must be as halebrain prepare wrote it",
    "remedy": "prepare it again",
}
_SET = ("space", "desc", "label")
"""Entities that the names of prepared files set themselves."""
_FREE_KEYS = frozenset({"brain"})
"""Settings in which a prepared scan may differ: its brain has been extracted already."""


@dataclass(frozen=True)
class PreparedFiles:
    """Where one prepared scan lies.

    Args:
        image: Intensities in [0, 1] on the working grid.
        brain_mask: On the same grid.
        lesion: Annotation on the same grid; not written where there is none.
        healthy: True healthy image of a virtual patient; not written where there is none.
        native_brain_mask: Brain mask on the scan's own grid.
    """

    image: Path
    brain_mask: Path
    lesion: Path
    healthy: Path
    native_brain_mask: Path

    @property
    def sidecar(self) -> Path:
        """The JSON sidecar; written last, so its presence marks a complete scan."""
        return sidecar_of(self.image)


def prepared_files(dataset: Path, record: ScanRecord, space: str = TEMPLATE_SPACE) -> PreparedFiles:
    """Return the places of one scan in a data set, in the manner of BIDS derivatives."""
    _check_labels(record)
    folders = [f"sub-{record.subject}"] + ([f"ses-{record.session}"] if record.session else [])
    base, mask_base = _stem(record), _stem(record, contrast=record.modality)
    folder, entity = dataset.joinpath(*folders, "anat"), f"space-{space}"

    return PreparedFiles(
        image=folder / f"{base}_{entity}_desc-preproc_{record.modality}.nii.gz",
        brain_mask=folder / f"{mask_base}_{entity}_desc-brain_mask.nii.gz",
        lesion=folder / f"{mask_base}_{entity}_label-lesion_mask.nii.gz",
        healthy=folder / f"{base}_{entity}_desc-healthy_{record.modality}.nii.gz",
        native_brain_mask=folder / f"{mask_base}_desc-brain_mask.nii.gz",
    )


def _stem(record: ScanRecord, *, contrast: str = "") -> str:
    """Return how the names of a scan's files begin: its entities, none twice; `contrast` is given for a mask.

    What the raw name says in an entity that the new name sets goes into its `rec`: `space-T1w` to `rec-spaceT1w`.
    """
    said = [pair.partition("-")[::2] for pair in (record.entities or "").split("_") if pair]
    entities = {"sub": record.subject} | ({"ses": record.session} if record.session else {})
    entities |= {key: label for key, label in said if key not in _SET}
    moved = "".join(key + label for key, label in said if key in _SET) + contrast
    if moved:
        entities["rec"] = entities.get("rec", "") + moved
    return "_".join(f"{key}-{label}" if label else key for key, label in entities.items())


def _check_labels(record: ScanRecord) -> None:
    for name in ("subject", "session", "entities", "modality"):
        value = getattr(record, name)
        if value is not None and not _LABEL.fullmatch(value):
            raise DataError(
                f"'{name}' must hold only letters, digits, - and _ (it becomes part of a file name)",
                received=repr(value),
                where=record.image,
                remedy="give it another label in the manifest",
            )


def sidecar_of(image: Path) -> Path:
    """Return the JSON beside an image."""
    return image.parent / f"{stem_of(image)}.json"


def write_prepared(
    files: PreparedFiles,
    scan: WorkingScan,
    *,
    config: PreprocessingConfig,
    lesion: MaskArray | None = None,
    healthy: FloatArray | None = None,
    placement: Placement | None = None,
    about: dict[str, Any],
) -> None:
    """Write one prepared scan, the sidecar last.

    Args:
        files: Where.
        scan: What the preprocessing gave.
        config: What it was asked to do.
        lesion: Annotation on the working grid.
        healthy: True healthy image on the working grid, in [0, 1].
        placement: How the NIfTI header of the raw scan places it; `None` for other formats.
        about: More for the sidecar (where it comes from, quality); JSON-able.
    """
    files.sidecar.unlink(missing_ok=True)
    grid, space = scan.grid.affine, config.space
    write_volume(files.image, scan.image, grid, space=space)
    write_volume(files.brain_mask, scan.brain_mask, grid, dtype=np.uint8, space=space)
    native = scan.native_brain_mask.astype(np.uint8)
    write_volume(files.native_brain_mask, native, scan.native.affine, dtype=np.uint8, placement=placement)
    for path, data in ((files.lesion, lesion), (files.healthy, healthy)):
        if data is None:
            path.unlink(missing_ok=True)
        else:
            dtype = np.uint8 if data.dtype == bool else np.float32
            write_volume(path, data, grid, dtype=dtype, space=space)
    span = scan.intensity
    sidecar = {
        _MARK: _FORM,
        "SkullStripped": True,
        "SpatialReference": space,
        "Notice": NOTICE,
        "preprocessing": config.model_dump(mode="json"),
        "steps": [step.to_json() for step in scan.steps],
        "qc": scan.qc.to_json(),
        "content": scan.content.hex(),
        "intensity": {"low": span.low, "high": span.high, "offset": span.offset},
        "template_to_native": scan.template_to_native.tolist(),
        "native": {"shape": list(scan.native.shape), "affine": scan.native.affine.tolist()},
        **about,
    }
    update_sidecar(files, sidecar)


def update_sidecar(files: PreparedFiles, sidecar: dict[str, Any]) -> None:
    """Write the JSON of a prepared scan."""
    write_text(files.sidecar, json.dumps(sidecar, indent=2, ensure_ascii=False) + "\n")


def read_sidecar(image: Path) -> dict[str, Any] | None:
    """Return what is written beside a prepared image; `None` where the image is not a prepared one."""
    path = sidecar_of(image)
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        return None  # Raw data sets have sidecars, too; they are not validated here.
    return found if isinstance(found, dict) and found.get(_MARK) == _FORM else None


def as_prepared(
    volume: Volume,
    image: Path,
    brain_mask: "Path | SpatialImage | None",
    config: PreprocessingConfig,
    notes: list[str] | None = None,
    *,
    mask: MaskArray | None = None,
) -> WorkingScan | None:
    """Return a prepared scan as if it had just been preprocessed; `None` if it is not a prepared one.

    Its native grid is the working grid: maps of it stay there.

    Args:
        volume: Any scan.
        image: Where it was read from.
        brain_mask: Its mask.
        config: How it should have been prepared.
        notes: Gets a line for each thing that was done to the mask; `None` = they are logged.
        mask: Its mask where that is read already, in place of `brain_mask`.

    Raises:
        DataError: It was prepared with other settings, or its mask is missing.
    """
    sidecar = read_sidecar(image)
    if sidecar is None:
        return None
    _check_settings(sidecar["preprocessing"], config, image)
    if brain_mask is None and mask is None:
        raise DataError(
            "a prepared scan needs its brain mask", where=image, remedy="use the manifest in the same folder"
        )
    if volume.shape != config.shape:
        raise DataError(
            "a prepared scan must lie on its working grid",
            received=f"{volume.shape} instead of {config.shape}",
            where=image,
            remedy="prepare it again",
        )
    grid = Grid(config.shape, volume.affine)
    mask = read_mask(brain_mask, volume, notes) if brain_mask is not None else mask
    assert mask is not None, "one of both is given"
    return WorkingScan(
        image=volume.data,
        brain_mask=mask,
        grid=grid,
        native=grid,
        native_brain_mask=mask,
        template_to_native=np.eye(4),
        intensity=IntensityRange(low=0.0, high=1.0, offset=0.0),
        log_bias=np.zeros(config.shape, dtype=np.float32),
        content=bytes.fromhex(sidecar["content"]),
        qc=QualityReport.from_json(sidecar.get("qc"), where=sidecar_of(image), **_AS_WRITTEN),
        steps=tuple(
            ProcessingStep.from_json(step, where=sidecar_of(image), **_AS_WRITTEN) for step in sidecar.get("steps", ())
        ),
    )


def open_scan(
    preprocessor: Preprocessor,
    volume: Volume,
    image: Path | None,
    *,
    brain_mask: "Path | SpatialImage | None" = None,
    space: str = "native",
    begin: Callable[[str], None] | None = None,
    notes: list[str] | None = None,
) -> WorkingScan:
    """Return a preprocessed scan; a prepared one is used unchanged.

    Args:
        preprocessor: What to do with a scan that is not prepared.
        volume: The scan.
        image: Where it was read from; `None` = it was in memory.
        brain_mask: Its mask, a file or a nibabel image; `None` = find it.
        space: "native", or the template's name where the scan lies in template space already.
        begin: Called with the name of each step of the preprocessing when it begins.
        notes: Gets a line for each thing that was done to the mask; `None` = these and those on the scan are logged.

    Raises:
        DataError: The scan cannot be used, or was prepared with other settings.
    """
    prepared = None if image is None else as_prepared(volume, image, brain_mask, preprocessor.config, notes)
    if prepared is not None:
        return prepared
    for note in volume.notes if notes is None else ():
        _log.warning("%s: %s", Path(volume.name).name, note)
    mask = None if brain_mask is None else read_mask(brain_mask, volume, notes)
    return preprocessor.run(volume, brain_mask=mask, space=space, begin=begin)


def open_record(preprocessor: Preprocessor, record: ScanRecord) -> tuple[Volume, WorkingScan]:
    """Return a scan of a manifest as it was read, and preprocessed; a prepared one is used unchanged."""
    volume = read_volume(record.image)
    return volume, open_scan(preprocessor, volume, record.image, brain_mask=record.brain_mask, space=record.space)


def is_prepared(image: Path, config: PreprocessingConfig) -> bool:
    """Return whether a scan is a prepared one.

    Args:
        image: The scan.
        config: How it should have been prepared.

    Raises:
        DataError: It was prepared with other settings.
    """
    sidecar = read_sidecar(image)
    if sidecar is not None:
        _check_settings(sidecar["preprocessing"], config, image)
    return sidecar is not None


def _check_settings(found: dict[str, Any], config: PreprocessingConfig, image: Path) -> None:
    wanted = config.model_dump(mode="json")
    other = sorted(k for k in wanted.keys() | found.keys() if k not in _FREE_KEYS and found.get(k) != wanted.get(k))
    if other:
        named = ", ".join(f"{key} {found.get(key)!r} instead of {wanted.get(key)!r}" for key in other)
        raise DataError(
            "a scan must be prepared with the settings that the model expects",
            received=named,
            where=image,
            remedy="prepare it again with those settings, or set data.preprocessing to those of the scan",
        )
