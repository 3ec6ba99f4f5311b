"""What one scan adds to an evaluation, and its file: parts of an evaluation write such files, and the last joins them.

Numbers and arrays come back to the bit. A file is a `.npz` without pickled objects: the arrays, and one JSON text.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from halebrain.core.files import atomic_path
from halebrain.evaluation.evaluate import MethodScores, Row, ScanScores
from halebrain.evaluation.reconstruction_quality import LevelQuality, ReconstructionQuality
from halebrain.evaluation.set_level import Froc, ImageLevel, Reliability
from halebrain.evaluation.thumbnails import Thumbnail

_Arrays = dict[str, npt.NDArray[Any]]
_TEXT = "text"
_PICTURES = ("image", "score", "predicted", "reference")
_COUNTS = ("count", "total", "lesion")


@dataclass(frozen=True)
class Contribution:
    """What one scan or exam adds to an evaluation.

    Args:
        scores: Its figures, by method.
        levels: Quality of its reconstruction, one entry a level.
        notes: What was done to its files.
        flags: Its quality flags.
        thresholds: Set of contrasts → value and name of the threshold of an exam.
    """

    scores: ScanScores
    levels: tuple[LevelQuality, ...] = ()
    notes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    thresholds: Mapping[str, Mapping[str, float | str]] = field(default_factory=dict)


def write_contribution(path: Path, made: Contribution, *, identity: str) -> None:
    """Write a contribution, atomically; `identity` is a hash of all that it depends on."""
    arrays: _Arrays = {}
    thumbnail = made.scores.thumbnail
    if thumbnail is not None:
        arrays |= {f"thumbnail {name}": getattr(thumbnail, name) for name in _PICTURES}
    stated = {
        "identity": identity,
        "methods": {
            name: _method(found, f"{number} ", arrays)
            for number, (name, found) in enumerate(made.scores.methods.items())
        },
        "thumbnail": None if thumbnail is None else {"scan_id": thumbnail.scan_id, "value": thumbnail.value},
        "levels": [asdict(level) for level in made.levels],
        "notes": list(made.notes),
        "flags": list(made.flags),
        "thresholds": {key: dict(value) for key, value in made.thresholds.items()},
    }
    arrays[_TEXT] = np.frombuffer(json.dumps(stated).encode(), np.uint8)
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]


def read_contribution(path: Path) -> Contribution:
    """Return the contribution in a file."""
    with np.load(path) as stored:
        arrays: _Arrays = {name: stored[name] for name in stored.files}
    stated = json.loads(arrays[_TEXT].tobytes())
    thumbnail, about = None, stated["thumbnail"]
    if about is not None:
        image, score, predicted, reference = (arrays[f"thumbnail {name}"] for name in _PICTURES)
        thumbnail = Thumbnail(about["scan_id"], about["value"], image, score, predicted, reference)
    methods = {
        name: _method_of(one, f"{number} ", arrays) for number, (name, one) in enumerate(stated["methods"].items())
    }
    levels = tuple(
        LevelQuality(**{**level, "quality": ReconstructionQuality(**level["quality"])}) for level in stated["levels"]
    )
    notes, flags = tuple(stated["notes"]), tuple(stated["flags"])
    return Contribution(ScanScores(methods, thumbnail), levels, notes, flags, stated["thresholds"])


def identity_of(path: Path) -> str | None:
    """Return the identity of the contribution in a file; `None` where there is none."""
    if not path.is_file():
        return None
    with np.load(path) as stored:
        return str(json.loads(stored[_TEXT].tobytes())["identity"])


def _method(found: MethodScores, prefix: str, arrays: _Arrays) -> dict[str, Any]:
    """Return what is stated of one method, and add its arrays to `arrays`."""
    if found.voxels is not None:
        arrays |= {f"{prefix}positive": found.voxels[0], f"{prefix}negative": found.voxels[1]}
    if found.reliability is not None:
        arrays |= {f"{prefix}{name}": getattr(found.reliability, name) for name in _COUNTS}
    if found.images is not None:
        for number, (scores, labels) in enumerate(found.images.slices):
            arrays |= {f"{prefix}slices {number}": scores, f"{prefix}labels {number}": labels}
    return {
        "rows": [asdict(row) for row in found.rows],
        "voxels": found.voxels is not None,
        "images": None if found.images is None else [[score, bool(label)] for score, label in found.images.scans],
        "reliability": found.reliability is not None,
        "counts": None if found.counts is None else [int(count) for count in found.counts],
        "froc": None if found.froc is None else asdict(found.froc),
    }


def _method_of(stated: Mapping[str, Any], prefix: str, arrays: _Arrays) -> MethodScores:
    images = None
    if stated["images"] is not None:
        scans = [(score, label) for score, label in stated["images"]]
        slices = [(arrays[f"{prefix}slices {n}"], arrays[f"{prefix}labels {n}"]) for n in range(len(scans))]
        images = ImageLevel(scans, slices)
    return MethodScores(
        rows=[Row(**row) for row in stated["rows"]],
        voxels=(arrays[f"{prefix}positive"], arrays[f"{prefix}negative"]) if stated["voxels"] else None,
        images=images,
        reliability=Reliability(*(arrays[prefix + name] for name in _COUNTS)) if stated["reliability"] else None,
        counts=None if stated["counts"] is None else tuple(stated["counts"]),
        froc=None if stated["froc"] is None else Froc(**stated["froc"]),
    )
