"""Scans and reconstructions of a benchmark in temporary files, so that memory does not grow with the number of scans.

A fold of the paper has 2000 scans: with the reconstructions of one network they are 20 GB.
"""

import shutil
import weakref
from collections.abc import Hashable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from halebrain.core.leftovers import new_scratch_folder
from halebrain.inference.scans import AnnotatedScan


class Scratch:
    """A temporary folder that exists as long as the object, or the process."""

    def __init__(self, place: Path | None = None) -> None:
        """Make the folder in `place`, which must exist, or among the system's temporary files."""
        self.folder = new_scratch_folder(place)
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def new_folder(self) -> Path:
        """Make an empty folder in it."""
        path = self.folder / str(len(list(self.folder.iterdir())))
        path.mkdir()
        return path


def on_disk(scans: Iterable[AnnotatedScan], count: int, folder: Path) -> list[AnnotatedScan]:
    """Return `count` scans of one working grid with their arrays in files of `folder`, to the bit.

    One scan at a time is in memory. As with prepared scans, the native grid is the working grid from then on. A file
    holds one array of all scans, since each mapped file stays open.
    """
    found: list[AnnotatedScan] = []
    files: dict[str, npt.NDArray[np.generic]] = {}
    for number, prepared in enumerate(scans):
        scan, arrays = prepared.scan, _arrays(prepared)
        if not files:
            files = {name: _mapped(folder / f"{name}.raw", array, count) for name, array in arrays.items()}
        for name, array in arrays.items():
            files[name][number] = array
        image, brain_mask, lesion = (_read_only(files[name][number]) for name in arrays)
        light = replace(
            scan,
            image=image,
            brain_mask=brain_mask,
            native=scan.grid,
            native_brain_mask=brain_mask,
            template_to_native=np.eye(4),
            log_bias=np.broadcast_to(np.float32(0), image.shape),
        )
        found.append(AnnotatedScan(prepared.record, light, lesion))
    return found


def _arrays(prepared: AnnotatedScan) -> dict[str, npt.NDArray[Any]]:
    return {"image": prepared.scan.image, "brain_mask": prepared.scan.brain_mask, "lesion": prepared.lesion}


def _mapped(path: Path, like: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    return np.memmap(path, like.dtype, "w+", shape=(count, *like.shape))


def _read_only(mapped: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a mapped array as an ordinary one, so that what is computed from it is ordinary, too."""
    array: npt.NDArray[Any] = mapped.view(np.ndarray)
    array.flags.writeable = False
    return array


class StoredReconstructions:
    """Reconstructions by what identifies them, `(n, 1, h, w)` float32, in files."""

    def __init__(self, place: Path | None = None) -> None:
        """Keep them in a temporary folder in `place`, or among the system's temporary files."""
        self._scratch = Scratch(place)
        self._names: dict[Hashable, Path] = {}

    def __contains__(self, key: Hashable) -> bool:
        """Return whether the reconstruction is there."""
        return key in self._names

    def __getitem__(self, key: Hashable) -> torch.Tensor:
        """Return a reconstruction, read from its file."""
        return torch.from_numpy(np.load(self._names[key]))

    def __setitem__(self, key: Hashable, slices: torch.Tensor) -> None:
        """Write a reconstruction."""
        path = self._scratch.folder / f"{len(self._names)}.npy"
        np.save(path, slices.numpy())
        self._names[key] = path

    def clear(self) -> None:
        """Remove all of them."""
        for path in self._names.values():
            path.unlink(missing_ok=True)
        self._names.clear()
