"""Fitting of the healthy residual map of a model, with each person's share kept apart so that it can be left out."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from halebrain.core.errors import MissingInputError, UsageError
from halebrain.core.failures import Failures
from halebrain.core.messages import Notify
from halebrain.core.moments import VoxelSums
from halebrain.core.types import FloatArray, MaskArray
from halebrain.inference.predictor import Predictor
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.models.healthy_map import (
    MIN_SUBJECTS,
    SIGMA_VOXELS,
    STRIDE_VOXELS,
    HealthyResidual,
    HealthyResiduals,
    HealthyScans,
)
from halebrain.preprocessing.geometry import Grid
from halebrain.preprocessing.pipeline import WorkingScan
from halebrain.preprocessing.prepared import open_record


@dataclass(frozen=True)
class _Share:
    """What one scan adds to a map: its residual inside the brain, float32, so that what was added can be taken away."""

    contrast: str
    brain_mask: npt.NDArray[np.uint8]
    residual: FloatArray
    shape: tuple[int, ...]

    @classmethod
    def of(cls, contrast: str, residual: FloatArray, brain_mask: MaskArray) -> "_Share":
        return cls(contrast, np.packbits(brain_mask), residual[brain_mask].astype(np.float32), brain_mask.shape)

    def sums(self) -> VoxelSums:
        mask = np.unpackbits(self.brain_mask, count=int(np.prod(self.shape))).astype(bool).reshape(self.shape)
        volume = np.zeros(self.shape, dtype=np.float32)
        volume[mask] = self.residual
        return VoxelSums.of(volume, mask)


@dataclass(frozen=True)
class HealthyFit:
    """A fitted map, and maps without a person for the scans of this person.

    Args:
        fitted: The map of all scans; contrasts that were not fitted are those of the earlier map.
        sums: Contrast → sums of the residuals of its scans.
        shares: Subject → what the scans of this person add.
    """

    fitted: HealthyResiduals
    sums: Mapping[str, VoxelSums]
    shares: Mapping[str, tuple[_Share, ...]]

    @property
    def contrasts(self) -> frozenset[str]:
        """The contrasts that were fitted; those of an earlier map are not."""
        return frozenset(share.contrast for own in self.shares.values() for share in own)

    def without(self, subject: str) -> HealthyResiduals:
        """Return the map of everybody else: a scan is never compared with itself."""
        contrasts = dict(self.fitted.contrasts)
        for contrast in {share.contrast for share in self.shares.get(subject, ())}:
            own = [share for share in self.shares[subject] if share.contrast == contrast]
            sums, scans = self.sums[contrast], contrasts[contrast].scans
            for share in own:
                sums = sums - share.sums()
            others = tuple(name for name in scans.subjects if name != subject)
            left = scans.model_copy(update={"n_scans": scans.n_scans - len(own), "subjects": others})
            contrasts[contrast] = HealthyResidual.of(sums, left)
        return replace(self.fitted, contrasts=contrasts)


def fit_healthy_map(
    predictor: Predictor,
    rows: Manifest,
    *,
    failures: Failures,
    notify: Notify,
    read: Callable[[ScanRecord], WorkingScan] | None = None,
) -> HealthyFit:
    """Return the map of the healthy scans of `rows`, for each contrast with those of five people or more.

    Args:
        predictor: The model; its earlier map keeps the contrasts that are not fitted.
        rows: The scans; those of patients take no part.
        failures: Collects scans that fail; the map is fitted without them.
        notify: Receives the contrasts and scans that are left out.
        read: Returns a scan on the working grid; `None` = it is read and preprocessed.

    Raises:
        MissingInputError: No contrast has scans of five healthy people.
        UsageError: The model gives no pseudo-healthy image.
    """
    if not predictor.bundle.reconstructor.gives_image:
        raise UsageError(
            "a healthy map needs a model that gives a pseudo-healthy image",
            received=predictor.bundle.config.reconstructor.name,
            remedy="calibrate without --healthy-map",
        )
    healthy = everyone = rows.select(lambda record: record.is_healthy)
    few = [name for name in _contrasts(healthy) if len(_people(healthy, name)) < MIN_SUBJECTS]
    for name in few:
        notify(f"no healthy map of {name}: {_said(healthy, name)}, fewer than {MIN_SUBJECTS}")
    healthy = healthy.select(lambda record: record.contrast not in few)
    if len(healthy) == 0:
        raise _too_few(everyone)
    sums: dict[str, VoxelSums] = {}
    shares: dict[str, list[_Share]] = defaultdict(list)
    used: list[ScanRecord] = []

    def add(record: ScanRecord) -> None:
        scan = open_record(predictor.preprocessor, record)[1] if read is None else read(record)
        if scan.qc.registration_failed:
            notify(f"{record.scan_id} failed to register and is left out of the healthy map")
            return
        residual = scan.image - predictor.reconstruct_levels(scan)["ensemble"]
        share = _Share.of(record.contrast, residual, predictor.scored(scan))
        own = share.sums()
        sums[record.contrast] = sums[record.contrast] + own if record.contrast in sums else own
        shares[record.subject].append(share)
        used.append(record)

    failures.each(add, healthy.records, name=lambda record: record.scan_id, description="Healthy map")
    table = replace(healthy, records=tuple(used))
    fitted = {}
    for name in sorted(sums):
        people = _people(table, name)
        if len(people) < MIN_SUBJECTS:
            notify(f"no healthy map of {name}: {_said(table, name)} could be used, fewer than {MIN_SUBJECTS}")
            continue
        own_rows = table.select(lambda record, name=name: record.contrast == name)  # type: ignore[misc]
        about = HealthyScans(
            n_scans=len(own_rows),
            subjects=people,
            manifest_sha256=own_rows.fingerprint(),
            sigma_voxels=SIGMA_VOXELS,
            stride_voxels=STRIDE_VOXELS,
        )
        fitted[name] = HealthyResidual.of(sums[name], about)
    if not fitted:
        raise _too_few(everyone)
    kept = {subject: tuple(share for share in own if share.contrast in fitted) for subject, own in shares.items()}
    return HealthyFit(_merged(predictor.healthy_map, predictor.preprocessor.grid, fitted), sums, kept)


def _merged(before: HealthyResiduals | None, grid: Grid, fitted: Mapping[str, HealthyResidual]) -> HealthyResiduals:
    found = HealthyResiduals(grid.shape, grid.affine, fitted)
    return found if before is None else before.updated(found)


def _contrasts(rows: Manifest) -> list[str]:
    return sorted({record.contrast for record in rows})


def _people(rows: Manifest, contrast: str) -> tuple[str, ...]:
    return tuple(sorted({record.subject for record in rows if record.contrast == contrast}))


def _said(rows: Manifest, contrast: str) -> str:
    count = len(_people(rows, contrast))
    return f"scans of {count} healthy {'person' if count == 1 else 'people'}"


def _too_few(rows: Manifest) -> MissingInputError:
    return MissingInputError(
        f"a healthy map needs scans of {MIN_SUBJECTS} healthy people of one contrast at least",
        received=", ".join(f"{name}: {_said(rows, name)}" for name in _contrasts(rows)) or "no scan",
        where=rows.where,
        remedy='assign more scans to "val" with healthy under "pathology", or calibrate without --healthy-map',
    )
