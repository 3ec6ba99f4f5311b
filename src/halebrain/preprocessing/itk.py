"""Shared ITK helpers: one thread, HaleBrain errors, and conversion between LPS and RAS."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from halebrain.core.errors import DataError
from halebrain.core.types import Affine, FloatArray

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""RAS world to ITK's, and back."""


@dataclass
class _Inside:
    """How many threads are in `one_itk_thread`, and the number of ITK threads before the first came."""

    count: int = 0
    before: int = 1


_inside, _entering = _Inside(), threading.Lock()
"""The number is one of the whole process: it is set back when the last thread leaves."""


@contextmanager
def one_itk_thread() -> Iterator[None]:
    """Keep ITK to one thread: its sums over several are not bit-stable, and at 2 mm one is nearly as quick."""
    import SimpleITK as sitk  # noqa: N813

    with _entering:
        if _inside.count == 0:
            _inside.before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
        _inside.count += 1
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-160:]
        raise DataError(
            "a scan must register and have its bias field fitted",
            received=reason,
            remedy="check the scan and its header",
        ) from error
    finally:
        with _entering:
            _inside.count -= 1
            if _inside.count == 0:
                sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(_inside.before)


def matrix_ras(affine: Any) -> Affine:
    """Return ITK's affine (about a centre, LPS) as one RAS matrix."""
    linear = np.array(affine.GetMatrix()).reshape(3, 3)
    centre, translation = np.array(affine.GetCenter()), np.array(affine.GetTranslation())
    lps = np.eye(4)
    lps[:3, :3] = linear
    lps[:3, 3] = translation + centre - linear @ centre
    matrix: Affine = LPS @ lps @ LPS
    return matrix


def to_itk(data: FloatArray, affine: Affine) -> Any:
    """Return an ITK image of an axis-aligned RAS array."""
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(np.ascontiguousarray(data.transpose(2, 1, 0).astype(np.float32)))
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).flatten().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image
