"""The baselines of `halebrain evaluate --baselines`: fitted on the manifest's healthy training scans."""

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from halebrain.core.types import FloatArray, MaskArray
    from halebrain.evaluation.baselines import AtlasModel
    from halebrain.inference.cohort import ScoredScan
    from halebrain.io.manifest import Manifest
    from halebrain.preprocessing.pipeline import Preprocessor

_LEAST_SCANS = 2


def fit_atlases(manifest: "Manifest", rows: "Manifest", preprocessor: "Preprocessor") -> "dict[str, AtlasModel]":
    """Return one atlas a modality of `rows`, fitted on the healthy scans of the split "train".

    Subjects that are evaluated take no part. A modality without two such scans has no atlas, with a note on stderr.

    Args:
        manifest: The whole table.
        rows: The scans to be evaluated.
        preprocessor: Of the model, so that atlas and scans lie on the same grid.
    """
    from halebrain.evaluation.baselines import AtlasModel

    evaluated = set(rows.subjects())
    train = manifest.split("train").select(lambda r: r.is_healthy and r.subject not in evaluated)
    atlases = {}
    for modality in sorted({record.modality for record in rows}):
        healthy = train.select(lambda record, own=modality: record.modality == own)  # type: ignore[misc]
        if len(healthy) < _LEAST_SCANS:
            typer.echo(f"halebrain: no atlas of {modality}: fewer than two healthy training scans", err=True)
            continue
        atlases[modality] = AtlasModel.fit(_working_scans(healthy, preprocessor, f"Atlas of {modality}"))
    return atlases


def baseline_scores(
    scored: "ScoredScan",
    image: "FloatArray",
    region: "MaskArray",
    *,
    working: bool,
    atlases: "Mapping[str, AtlasModel] | None",
) -> "dict[str, FloatArray]":
    """Return each baseline's score of a scan in [0, 1], 0 outside `region`, by name.

    Args:
        scored: The scan.
        image: Its intensities on the grid that is evaluated, `(i, j, k)`.
        region: Voxels that count, same shape.
        working: Whether that is the working grid.
        atlases: Modality → atlas; `None` = the default baseline alone.
    """
    import numpy as np

    from halebrain.evaluation.baselines import BASELINES, DEFAULT

    modality = scored.record.modality
    found = {}
    for name in [DEFAULT] if atlases is None else BASELINES:
        found[name] = np.zeros(region.shape, dtype=np.float32)
        found[name][region] = BASELINES.get(name)(image[region], modality)
    atlas = (atlases or {}).get(modality)
    if atlas is not None:
        for name, signed in (("atlas z-score", False), ("atlas z-score signed", True)):
            score = atlas.score(scored.scan.image, signed=signed, modality=modality) * scored.scan.brain_mask
            found[name] = score if working else np.clip(scored.scan.to_native(score), 0, 1)
    return found


def _working_scans(
    rows: "Manifest", preprocessor: "Preprocessor", description: str
) -> "Iterator[tuple[FloatArray, MaskArray]]":
    """Yield image and brain mask on the working grid, one scan at a time."""
    from halebrain.core.progress import track
    from halebrain.io.nifti import read_volume
    from halebrain.preprocessing.prepared import open_scan

    for record in track(rows.records, description=description, total=len(rows)):
        volume = read_volume(record.image)
        scan = open_scan(preprocessor, volume, record.image, brain_mask=record.brain_mask, space=record.space)
        if scan.qc["registration_failed"]:
            typer.echo(f"halebrain: {record.scan_id} failed to register and is left out of the atlas", err=True)
            continue
        yield scan.image, scan.brain_mask
