"""Volumes inside a page: eight bits per voxel with a stated scale, differences compressed, and decoding."""

import base64
import binascii
import gzip
import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from halebrain.core.errors import DataError, MissingInputError
from halebrain.core.mask import Cut
from halebrain.core.types import FloatArray, MaskArray, ScanResult
from halebrain.report.display import Codes, DisplayGrid

FORMAT = 1
_FROM_SCAN = "give the scan: halebrain report OUT -i SCAN"
_DATA = re.compile(r'<script type="application/json" id="page-data">(.*?)</script>', re.DOTALL)
_VOLUME = re.compile(r'<script type="text/plain" id="volume-([a-z]+)">([A-Za-z0-9+/=\s]*)</script>')


@dataclass(frozen=True)
class ShownVolume:
    """A map as a page holds it: value = offset + scale · code; codes `(x, y, z)` to the right, front and up."""

    codes: Codes
    scale: float
    offset: float
    spacing_mm: tuple[float, float, float]

    @property
    def values(self) -> FloatArray:
        """The map, decoded."""
        return (self.offset + self.scale * self.codes.astype(np.float32)).astype(np.float32)

    def about(self) -> dict[str, Any]:
        """Return what a reader of the codes must know; JSON-able."""
        return {
            "shape": list(self.codes.shape),
            "spacing_mm": list(self.spacing_mm),
            "scale": self.scale,
            "offset": self.offset,
        }

    def encoded(self) -> str:
        """Return base64 of gzip of the differences from voxel to voxel, x fastest, modulo 256."""
        flat = self.codes.ravel(order="F")
        steps = np.diff(flat, prepend=np.uint8(0))  # unsigned: wraps around, as the sum does on the way back
        return base64.b64encode(gzip.compress(steps.tobytes(), compresslevel=6, mtime=0)).decode("ascii")


def scan_file(scan: ShownVolume) -> bytes:
    """Return the content of the `.npz` file that holds the scan beside its page; the same scan gives the same bytes."""
    buffer = io.BytesIO()
    codes = np.ascontiguousarray(scan.codes)
    np.savez_compressed(buffer, codes=codes, scale=scan.scale, offset=scan.offset, spacing_mm=np.array(scan.spacing_mm))
    return buffer.getvalue()


def read_scan_file(path: Path) -> ShownVolume:
    """Return the scan that `scan_file` stored."""
    with _stored(path, "the scan of a page", _FROM_SCAN) as stored:
        (x, y, z), codes = stored["spacing_mm"].tolist(), np.asarray(stored["codes"], dtype=np.uint8)
        return ShownVolume(codes, float(stored["scale"]), float(stored["offset"]), (x, y, z))


def volumes_file(volumes: Mapping[str, ShownVolume], maps: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return the content of the `.npz` file that holds volumes of a page, and other arrays, by name."""
    entries: dict[str, npt.NDArray[Any]] = {}
    for name, volume in volumes.items():
        entries[f"codes-{name}"] = np.ascontiguousarray(volume.codes)
        entries[f"about-{name}"] = np.array([volume.scale, volume.offset, *volume.spacing_mm])
    entries |= {f"map-{name}": data for name, data in maps.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **entries)
    return buffer.getvalue()


def read_volumes_file(path: Path, remedy: str) -> tuple[dict[str, ShownVolume], dict[str, npt.NDArray[Any]]]:
    """Return what `volumes_file` stored; `remedy` is for a damaged file."""
    with _stored(path, "the volumes of a page", remedy) as stored:
        volumes, maps = {}, {}
        for key in stored.files:
            kind, _, name = key.partition("-")
            if kind == "map":
                maps[name] = stored[key]
            elif kind == "codes":
                scale, offset, x, y, z = stored[f"about-{name}"].tolist()
                volumes[name] = ShownVolume(np.asarray(stored[key], dtype=np.uint8), scale, offset, (x, y, z))
        return volumes, maps


@contextmanager
def _stored(path: Path, what: str, remedy: str) -> Iterator[Any]:
    """Open a stored file; a damaged one is a `DataError`."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            yield stored
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{what} must be intact", received=error, where=path, remedy=remedy) from error


def decode(text: str, about: Mapping[str, Any]) -> ShownVolume:
    """Return the volume from `encoded` and `about`."""
    try:
        steps = np.frombuffer(gzip.decompress(base64.b64decode(text)), dtype=np.uint8)
        codes = np.cumsum(steps, dtype=np.uint8).reshape(about["shape"], order="F")
    except (OSError, EOFError, ValueError, binascii.Error) as error:
        raise DataError("the volumes of a page must be intact", received=error, remedy=_FROM_SCAN) from error
    x, y, z = about["spacing_mm"]
    return ShownVolume(codes, about["scale"], about["offset"], (x, y, z))


def read_page(path: Path) -> tuple[dict[str, Any], dict[str, ShownVolume]]:
    """Return the data of a page and its volumes by name; results of version 0.1 hold the scan in their page alone."""
    if not path.is_file():
        raise MissingInputError("a page must exist", where=path, remedy="run halebrain detect --overwrite")
    text = path.read_text(encoding="utf-8", errors="replace")
    found = _DATA.search(text)
    data = json.loads(found[1]) if found else {}
    if data.get("format") != FORMAT:
        raise DataError(
            "a page must hold the volumes of its scan", received="no known volume", where=path, remedy=_FROM_SCAN
        )
    known = {name: decode(encoded, data["volumes"][name]) for name, encoded in _VOLUME.findall(text)}
    return data, known


def shown_scan(scan: FloatArray, brain_mask: MaskArray, grid: DisplayGrid) -> ShownVolume:
    """Return a scan as a page holds it: black at the lower, white near the upper end of what its brain shows."""
    inside = scan[brain_mask] if brain_mask.any() else scan.ravel()
    # A few voxels below 0 after interpolation must not turn the empty background grey.
    low, high = min(0.0, float(np.percentile(inside, 1))), float(np.percentile(inside, 99.7))
    scale = (high - low if high > low else 1.0) / 255
    return ShownVolume(_nearest(grid.show(scan, grid.fine_mm), scale, low), scale, low, grid.spacing_mm(grid.fine_mm))


def shown_volumes(
    maps: ScanResult, mask: MaskArray, scan: ShownVolume, grid: DisplayGrid, *, cut: Cut
) -> dict[str, ShownVolume]:
    """Return everything that a page shows, by name; `scan` lies on the same grid as the maps are shown on.

    Steps of the score begin at the thresholds of the mask, so the codes show exactly where they are reached.
    """
    coarse = grid.spacing_mm(grid.coarse_mm)
    marked = marked_volumes(maps.score, mask, grid, cut=cut)
    if scan.codes.shape != marked["score"].codes.shape:
        raise DataError(
            "a scan must lie on the grid of its maps",
            received=f"shape {scan.codes.shape}",
            remedy=_FROM_SCAN,
        )
    volumes = {"scan": scan, **marked}
    volumes["healthy"] = shown_healthy(maps.reconstruction, scan, grid)
    probability = grid.show(maps.probability, grid.coarse_mm)
    volumes["probability"] = ShownVolume(_nearest(probability, 1 / 255, 0.0), 1 / 255, 0.0, coarse)
    residual = grid.show(maps.residual, grid.coarse_mm)
    step = max(float(np.percentile(np.abs(residual), 99.9)), 0.05) / 127
    volumes["residual"] = ShownVolume(_nearest(residual, step, -127 * step), step, -127 * step, coarse)
    spread = grid.show(maps.uncertainty, grid.coarse_mm)
    step = max(float(spread.max()), 1e-3) / 255
    volumes["uncertainty"] = ShownVolume(_nearest(spread, step, 0.0), step, 0.0, coarse)
    return volumes


def marked_volumes(score: FloatArray, mask: MaskArray, grid: DisplayGrid, *, cut: Cut) -> dict[str, ShownVolume]:
    """Return what depends on the threshold in a page: the score in steps, and the mask."""
    fine = grid.spacing_mm(grid.fine_mm)
    codes = (grid.show(mask, grid.fine_mm) >= 0.5).astype(np.uint8)
    return {
        "score": score_codes(grid.show(score, grid.fine_mm), cut, fine),
        "mask": ShownVolume(codes, 1.0, 0.0, fine),
    }


def shown_healthy(reconstruction: FloatArray, scan: ShownVolume, grid: DisplayGrid) -> ShownVolume:
    """Return a pseudo-healthy scan as a page holds it, in the grey levels of its scan."""
    codes = _nearest(grid.show(reconstruction, grid.coarse_mm), scan.scale, scan.offset)
    return ShownVolume(codes, scan.scale, scan.offset, grid.spacing_mm(grid.coarse_mm))


def score_codes(score: FloatArray, cut: Cut, spacing_mm: tuple[float, float, float]) -> ShownVolume:
    """Return a score in steps, rounded down; one begins at the threshold > 0, and one at the lower threshold.

    Two thresholds that are less than a step apart share one.
    """
    threshold = cut.threshold
    step = max(float(score.max()), threshold) / 254
    if cut.grow_to is not None and (between := int((threshold - cut.grow_to) / step)):
        step = (threshold - cut.grow_to) / between
    level = math.ceil(threshold / step - 1e-9)
    offset = threshold - level * step
    above = np.floor((score.astype(np.float64) - threshold) / step).astype(np.int64) + level
    return ShownVolume(np.clip(above, 0, 255).astype(np.uint8), step, offset, spacing_mm)


def threshold_level(score: ShownVolume, threshold: float) -> int:
    """Return the code at which a score reaches the threshold that its steps were laid for."""
    return round((threshold - score.offset) / score.scale)


def _nearest(data: FloatArray, scale: float, offset: float) -> Codes:
    codes: Codes = np.clip(np.rint((data - offset) / scale), 0, 255).astype(np.uint8)
    return codes
