"""From a manifest to batches of axial slices: each scan is preprocessed once, cached, and read as a memory map.

Which slices a step sees is a function of (seed, stream, step), so a run that was killed continues with the same batches
that it would have seen.
"""

import hashlib
import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, PositiveInt, model_validator

from halebrain.core.config import GrowingConfig
from halebrain.core.errors import DataError, MissingInputError
from halebrain.core.files import atomic_path
from halebrain.core.parallel import Schedule, map_items
from halebrain.core.progress import track
from halebrain.core.types import LEARNED_BRAIN_PIXELS, SLICE_AXIS
from halebrain.io.annotation import lesion_of_a_healthy_scan, read_lesion
from halebrain.io.checksum import scan_sha256
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor
from halebrain.preprocessing.prepared import open_record, read_sidecar

_CACHE_VERSION = 1
Sampling = Literal["random", "all", "level"]


class DataConfig(GrowingConfig):
    """Which scans to learn from, and how they are preprocessed.

    Args:
        manifest: The table of scans.
        more_manifests: Further tables, whose scans join those of the first.
        oversample_factor: How many times a training scan of the further tables counts, for all or for each in order:
            this oversamples a few real scans among hundreds of virtual ones.
        modalities: Modalities to use; `None` = all.
        pathologies: Annotated pathologies to learn from (stage 2); `None` = all.
        preprocessing: Settings of the preprocessing; they travel with the model.
        cache: Folder of preprocessed slices; `None` = beside the run.
        workers: Processes that preprocess scans which are not cached yet and, if a GPU trains stage 1 or stage 2
            without pairs made before, draw batches ahead of it; 0 = this one.
        sampling: How healthy training slices are drawn: "random" = a scan, then one of its slices; "all" = every slice
            once an epoch, in another order each time; "level" = all of a batch from the same height of the brain.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"more_manifests", "oversample_factor", "sampling", "workers"})

    manifest: Path | None = None
    more_manifests: tuple[Path, ...] = ()
    oversample_factor: PositiveInt | tuple[PositiveInt, ...] = 1
    modalities: tuple[str, ...] | None = None
    pathologies: tuple[str, ...] | None = None
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    cache: Path | None = None
    workers: int = Field(default=0, ge=0)
    sampling: Sampling = "random"

    @model_validator(mode="after")
    def _has_a_weight_for_each(self) -> "DataConfig":
        if isinstance(self.oversample_factor, tuple) and len(self.oversample_factor) != len(self.more_manifests):
            raise ValueError(
                f"oversample_factor has {len(self.oversample_factor)} for {len(self.more_manifests)} more_manifests"
            )
        return self


@dataclass(frozen=True)
class SliceBatch:
    """Slices of several scans.

    Args:
        image: Intensities in [0, 1], float32, `(b, 1 + k, h, w)`: the slice, then its neighbours in the store.
        brain_mask: Bool, same shape.
        lesion: Annotated lesion in the slice itself, bool, `(b, 1, h, w)`; all false where there is no annotation.
    """

    image: torch.Tensor
    brain_mask: torch.Tensor
    lesion: torch.Tensor


@dataclass(frozen=True)
class SliceStore:
    """Preprocessed slices of many scans, on disk.

    A store that is sent to another process takes the places of its files along, not what is in them.

    Args:
        images: One array a scan, `(n, h, w)`, float16.
        labels: One array a scan, `(n, h, w)`, uint8: 1 = brain, 3 = brain and lesion.
        records: The manifest rows, in the same order.
        levels: One array a scan, `(n,)`, ascending: the height of each slice on the working grid; empty where the store
            was opened without them.
        neighbours: Which slices are read beside each: places from it; beyond the first and the last is nothing, 0.
    """

    images: tuple[npt.NDArray[np.float16], ...]
    labels: tuple[npt.NDArray[np.uint8], ...]
    records: tuple[ScanRecord, ...]
    levels: tuple[npt.NDArray[np.int64], ...] = ()
    neighbours: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __getstate__(self) -> dict[str, Any]:
        arrays = {name: tuple(map(_place_of, getattr(self, name))) for name in ("images", "labels")}
        return {**self.__dict__, **arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Once each, however often a scan counts: every map keeps a file open.
        opened = lru_cache(maxsize=None)(_opened)
        arrays = {
            name: tuple(opened(place) if isinstance(place, Path) else place for place in state[name])
            for name in ("images", "labels")
        }
        self.__dict__.update(state, **arrays)

    @cached_property
    def lesion_slices(self) -> list[npt.NDArray[np.int64]]:
        """For each scan, the slices that hold lesion."""
        return [np.flatnonzero((labels > 1).any(axis=(1, 2))) for labels in self.labels]

    def fingerprint(self, scan: int) -> str:
        """Return a hash of the slices of one scan and their labels; files of the cache are named by what is in them."""
        digest = hashlib.sha256()
        for array in (self.images[scan], self.labels[scan]):
            place = _place_of(array)
            digest.update(place.name.encode() if isinstance(place, Path) else array.tobytes())
        return digest.hexdigest()

    def of(self, places: Sequence[int]) -> "SliceStore":
        """Return the store of the scans at some places, each as often as it is named."""
        names = ("images", "labels", "records", "levels")
        return replace(self, **{name: tuple(own[n] for n in places) for name in names if (own := getattr(self, name))})

    def read(self, scan: list[int], position: list[int]) -> SliceBatch:
        """Return the slices at `position` of the scans at `scan`, each with its neighbours."""
        places = list(zip(scan, position, strict=True))
        image = np.stack([self._with_neighbours(self.images[s], p) for s, p in places])
        labels = torch.from_numpy(np.stack([self._with_neighbours(self.labels[s], p) for s, p in places]))
        return SliceBatch(torch.from_numpy(image.astype(np.float32)), labels > 0, labels[:, :1] > 1)

    def _with_neighbours(self, slices: npt.NDArray[Any], position: int) -> npt.NDArray[Any]:
        found = np.zeros((1 + len(self.neighbours), *slices.shape[1:]), slices.dtype)
        for channel, place in enumerate((0, *self.neighbours)):
            if 0 <= position + place < len(slices):
                found[channel] = slices[position + place]
        return found


def build_store(
    manifest: Manifest,
    config: PreprocessingConfig,
    cache: Path,
    *,
    description: str,
    with_levels: bool = False,
    workers: int = 0,
) -> SliceStore:
    """Preprocess every scan of `manifest` that is not cached yet and open them all.

    `with_levels` opens the heights of slices too; a scan that was cached without them is preprocessed once more.
    `workers` are the processes that preprocess; 0 = this one.
    """
    if len(manifest) == 0:
        raise MissingInputError(
            f"{description}: at least one scan is needed",
            where=manifest.where,
            remedy="check the columns split, modality and pathology, and the settings that select by them",
        )
    atlas = atlas_sha256(config)
    keys = [_cache_key(record, config, atlas) for record in manifest]
    places = [_Cached(*(cache / f"{key}_{kind}.npy" for kind in _Cached._fields)) for key in keys]
    missing = {
        place.label: (record, config, place)
        for record, place in zip(manifest, places, strict=True)
        if not place.label.exists() or (with_levels and not place.levels.exists())
    }
    _preprocessor.cache_clear()  # the file of its template may be another one by now
    made = map_items(_preprocess, list(missing.values()), Schedule(workers=workers))
    for _, error in track(made, description=f"Reading {description}", total=len(missing)):
        if error is not None:
            raise error
    labels = tuple(np.load(place.label, mmap_mode="r") for place in places)
    for record, own in zip(manifest, labels, strict=True):
        # The slices may be older than the word that the scan is healthy.
        if record.is_healthy and record.lesion is not None and (marked := int((own > 1).sum())):
            raise lesion_of_a_healthy_scan(record, marked)
    return SliceStore(
        tuple(np.load(place.image, mmap_mode="r") for place in places),
        labels,
        manifest.records,
        tuple(np.load(place.levels) for place in places) if with_levels else (),
    )


def atlas_sha256(config: PreprocessingConfig) -> list[str]:
    """Return the hashes of the atlas of a configuration and of its mask; [] for the MNI template."""
    return [scan_sha256(path) for path in (config.template, config.template_mask) if path is not None]


def scan_weights(data: DataConfig) -> dict[str, int]:
    """Return name → `data.oversample_factor` of the scans of further tables; empty where all count once."""
    tables, weights = data.more_manifests, data.oversample_factor
    each = weights if isinstance(weights, tuple) else (weights,) * len(tables)
    if set(each) <= {1}:
        return {}
    return {r.scan_id: weight for path, weight in zip(tables, each, strict=True) for r in Manifest.read(path)}


def weigh(store: SliceStore, data: DataConfig) -> SliceStore:
    """Return the store with the scans of `data.more_manifests` in it `data.oversample_factor` times."""
    weights = scan_weights(data)
    if not weights:
        return store
    return store.of([n for n, record in enumerate(store.records) for _ in range(weights.get(record.scan_id, 1))])


def _place_of(array: npt.NDArray[Any]) -> Path | npt.NDArray[Any]:
    """Return the file of an array that maps a whole file; other arrays unchanged."""
    whole = isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap)
    return Path(str(array.filename)) if whole and array.filename is not None else array  # type: ignore[attr-defined]


def _opened(place: Path) -> npt.NDArray[Any]:
    opened: npt.NDArray[Any] = np.load(place, mmap_mode="r")
    return opened


class _Cached(NamedTuple):
    """Files of one scan in the cache."""

    image: Path
    label: Path
    levels: Path


@lru_cache(maxsize=2)
def _preprocessor(config: PreprocessingConfig) -> Preprocessor:
    return Preprocessor(config)


def _preprocess(task: tuple[ScanRecord, PreprocessingConfig, _Cached]) -> None:
    record, config, place = task
    preprocessor = _preprocessor(config)
    volume, scan = open_record(preprocessor, record)
    if scan.qc.registration_failed:
        raise DataError("a training scan must register to the template", where=record.image, remedy="check it")
    labels = scan.brain_mask.astype(np.uint8)
    lesion = read_lesion(record, volume)
    if lesion is not None:
        labels[scan.mask_from_native(lesion) & scan.brain_mask] = 3
    slices = np.moveaxis(scan.image, SLICE_AXIS, 0).astype(np.float16)
    labels = np.moveaxis(labels, SLICE_AXIS, 0)
    keep = (labels > 0).sum(axis=(1, 2)) >= LEARNED_BRAIN_PIXELS
    if not keep.any():
        raise DataError(
            "a training scan must show brain on the working grid",
            where=record.image,
            remedy="check the scan and its brain mask, or remove it from the manifest",
        )
    # The labels last: where they are, the others are too.
    arrays = ((place.levels, np.flatnonzero(keep)), (place.image, slices[keep]), (place.label, labels[keep]))
    for path, array in arrays:
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            np.save(handle, array)


def _cache_key(record: ScanRecord, config: PreprocessingConfig, atlas: list[str]) -> str:
    digest = hashlib.sha256(json.dumps([_CACHE_VERSION, record.space, config.model_dump(mode="json")]).encode())
    for path in (record.image, record.brain_mask, record.lesion):
        digest.update(b"-" if path is None else bytes.fromhex(scan_sha256(path)))
    for sha256 in atlas:
        digest.update(bytes.fromhex(sha256))
    if read_sidecar(record.image) is not None:
        # The same image without its sidecar would be preprocessed.
        digest.update(b"prepared")
    return digest.hexdigest()[:32]
