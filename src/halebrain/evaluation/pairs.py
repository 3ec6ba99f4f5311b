"""Anyone's results from disk: a folder of anomaly maps or masks against a folder of references, scan by scan."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import numpy.typing as npt

from halebrain.core.errors import DataError, MissingInputError, UsageError
from halebrain.core.types import Affine, MaskArray
from halebrain.evaluation.case import Case, axial_axis
from halebrain.io.volume import MAP_SUFFIXES, read_array, stem_of

_ENTITY = re.compile(r"(?:^|_)(sub|ses)-([^_]+)")
_GRID_TOLERANCE_MM = 1e-2


@dataclass(frozen=True)
class Pair:
    """Two files about one scan.

    Args:
        scan_id: What they have in common.
        subject: Whose scan it is.
        prediction: Anomaly map or mask.
        reference: True lesion.
        brain_mask: Where voxels count; `None` = everywhere.
    """

    scan_id: str
    subject: str
    prediction: Path
    reference: Path
    brain_mask: Path | None = None


@dataclass(frozen=True)
class PairOptions:
    """How pairs are read.

    Args:
        labels: Values of the reference that are lesion; "all" = every value > 0; `None` = the same, but refused where
            there are several.
        graded: Whether the predictions are anomaly maps; `False` = masks, any value > 0 is called.
        threshold: Frozen threshold for maps; `None` = metrics on masks are left out.
        modality: What the table calls the contrast.
    """

    labels: tuple[int, ...] | Literal["all"] | None = None
    graded: bool = True
    threshold: float | None = None
    modality: str = "unknown"


def parse_labels(text: str | None) -> tuple[int, ...] | Literal["all"] | None:
    """Return the labels that a user names: "all", or numbers with commas.

    Raises:
        UsageError: It is neither.
    """
    if text is None or text == "all":
        return "all" if text else None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            "--labels takes all, or numbers with commas", received=repr(text), remedy="for example --labels 1,4"
        ) from error


def find_pairs(predictions: Path, references: Path, brain_masks: Path | None = None) -> list[Pair]:
    """Match the NIfTI of two folders: by name, and where names differ by their `sub-` and `ses-`.

    Raises:
        MissingInputError: A folder is not there or holds no NIfTI, or a file has no partner.
        DataError: Two files would be the same scan.
    """
    sides = [_by_key(folder) for folder in (predictions, references)]
    masks = {} if brain_masks is None else _by_key(brain_masks)
    lonely = sorted(sides[0].keys() ^ sides[1].keys())
    if brain_masks is not None:
        lonely += sorted(sides[1].keys() - masks.keys())
    if lonely:
        named = ", ".join(lonely[:5]) + (f" and {len(lonely) - 5} more" if len(lonely) > 5 else "")
        raise MissingInputError(
            "every prediction needs its reference, and the other way round",
            received=f"{len(lonely)} without: {named}",
            where=references,
            remedy="name pairs alike, or give both the same sub- and ses-",
        )
    return [Pair(key, _subject(key), path, sides[1][key], masks.get(key)) for key, path in sorted(sides[0].items())]


def are_graded(pairs: list[Pair]) -> bool:
    """Return whether the predictions are anomaly maps: any of them is stored as, or scaled to, fractions."""
    for pair in pairs:
        header: Any = nibabel.load(pair.prediction).header
        slope = float(header["scl_slope"])
        if np.issubdtype(header.get_data_dtype(), np.floating) or (np.isfinite(slope) and slope not in (0.0, 1.0)):
            return True
    return False


def read_case(pair: Pair, options: PairOptions) -> tuple[Case, list[str]]:
    """Return the case of a pair on the grid of its reference, and what was done to bring the prediction there.

    Raises:
        DataError: A file is damaged, the grids are not the same place, or the reference has several labels unasked.
    """
    reference, affine = read_array(pair.reference)
    truth = _lesion(reference, options.labels, pair.reference)
    notes: list[str] = []
    prediction = _on_grid(pair.prediction, truth.shape, affine, pair.reference, notes)
    region = np.ones(truth.shape, dtype=bool)
    if pair.brain_mask is not None:
        region = (_on_grid(pair.brain_mask, truth.shape, affine, pair.reference, notes) > 0) | truth
    if not np.isfinite(prediction).all():
        raise DataError(
            "a prediction must be finite",
            received="NaN or infinite voxels",
            where=pair.prediction,
            remedy="set them to 0, or make the map again",
        )
    if options.graded and (prediction[region].min() < 0 or prediction[region].max() > 1):
        notes.append(f"{pair.prediction.name}: scores outside [0, 1] are no probabilities; calibration error left out")
    mask = None if options.graded else prediction > 0
    if options.graded and options.threshold is not None:
        mask = prediction >= options.threshold
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    case = Case(
        scan_id=pair.scan_id,
        subject=pair.subject,
        modality=options.modality,
        pathology="unknown" if truth.any() else "healthy",
        reference=truth,
        region=region,
        spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        score=prediction if options.graded else None,
        mask=mask,
        axial_axis=axial_axis(affine),
    )
    return case, notes


def _by_key(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise MissingInputError("a folder must exist", where=folder, remedy="check the path given")
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.rglob("*") if p.name.endswith(MAP_SUFFIXES)):
        entities = dict(_ENTITY.findall(path.name))
        key = "_".join(f"{k}-{entities[k]}" for k in ("sub", "ses") if k in entities) or stem_of(path)
        if key in found:
            raise DataError(
                "a folder must hold one file a scan",
                received=f"'{path.name}' and '{found[key].name}'",
                where=folder,
                remedy="leave one, or point to a folder with maps of one kind",
            )
        found[key] = path
    if not found:
        raise MissingInputError("a folder must hold NIfTI files", where=folder, remedy="check the path given")
    return found


def _subject(key: str) -> str:
    entities: dict[str, str] = dict(_ENTITY.findall(key))
    return entities.get("sub", key)


def _lesion(values: npt.NDArray[Any], labels: tuple[int, ...] | Literal["all"] | None, path: Path) -> MaskArray:
    if isinstance(labels, tuple):
        return np.isin(values, labels)
    present = np.unique(values[values > 0])
    if labels is None and len(present) > 1:
        raise DataError(
            "which labels are lesion must be said where there are several",
            received=", ".join(f"{v:g}" for v in present[:8]),
            where=path,
            remedy="give --labels (all, or numbers)",
        )
    return np.asarray(values > 0)


def _on_grid(
    path: Path, shape: tuple[int, ...], affine: Affine, reference: Path, notes: list[str]
) -> npt.NDArray[np.float32]:
    """Return the array on the reference's grid: as it is, or turned where only its orientation differs."""
    data, own = read_array(path)
    if data.shape == shape and np.allclose(own, affine, atol=_GRID_TOLERANCE_MM):
        return data
    turned = nibabel.Nifti1Image(data, own).as_reoriented(
        nibabel.orientations.ornt_transform(nibabel.io_orientation(own), nibabel.io_orientation(affine))
    )
    if turned.shape == shape and np.allclose(turned.affine, affine, atol=_GRID_TOLERANCE_MM):
        notes.append(f"{path.name}: turned to the orientation of {reference.name}")
        return np.asarray(turned.dataobj, dtype=np.float32)
    raise DataError(
        f"a prediction must lie on the grid of its reference {tuple(shape)} of '{reference.name}'",
        received=f"shape {data.shape}" + (" with another affine" if data.shape == shape else ""),
        where=path,
        remedy="resample it to the reference",
    )
