"""The scans of a benchmark, preprocessed once, so that every method is evaluated on the same arrays."""

from dataclasses import replace

import numpy as np
import torch

from halebrain.core.errors import DataError
from halebrain.core.progress import track
from halebrain.core.random import make_generator
from halebrain.core.types import SLICE_AXIS
from halebrain.data.anomalies import AnomalyGenerator
from halebrain.inference.cohort import AnnotatedScan
from halebrain.io.manifest import Manifest
from halebrain.io.nifti import read_mask
from halebrain.preprocessing.pipeline import Preprocessor
from halebrain.preprocessing.prepared import open_record


def judged(manifest: Manifest, pathologies: tuple[str, ...]) -> Manifest:
    """Return the scans on which methods are evaluated: healthy ones, and annotated ones of the given pathologies."""
    return manifest.select(lambda r: r.is_healthy or (r.lesion is not None and r.pathology in pathologies))


def prepare(manifest: Manifest, preprocessor: Preprocessor, *, description: str) -> list[AnnotatedScan]:
    """Return every scan of the manifest on the working grid.

    Raises:
        DataError: A scan cannot be used; the message names it.
    """
    found = []
    for record in track(manifest.records, description=description, total=len(manifest)):
        volume, scan = open_record(preprocessor, record)
        if scan.qc.get("registration_failed"):
            raise DataError(
                "a scan of a benchmark must register to the template",
                where=record.image,
                remedy="remove it from the manifest, or set preprocessing.registration to none",
            )
        lesion = np.zeros_like(scan.brain_mask)
        if record.lesion is not None and not record.is_healthy:
            lesion = scan.mask_from_native(read_mask(record.lesion, volume))
        found.append(AnnotatedScan(record, scan, lesion))
    return found


def with_anomalies(prepared: AnnotatedScan, anomaly: AnomalyGenerator, *, pathology: str) -> AnnotatedScan:
    """Return a healthy scan with synthetic anomalies in its slices, the same ones each time.

    Args:
        prepared: The scan.
        anomaly: What is put in.
        pathology: Pathology of the new scan.
    """
    scan = prepared.scan
    image, brain_mask = (
        torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, SLICE_AXIS, 0)))[:, None]
        for array in (scan.image, scan.brain_mask)
    )
    generator = make_generator("synthetic column", prepared.record.scan_id)
    altered, lesion = anomaly.apply(image, brain_mask, anomaly.sample_params(len(image), generator=generator))
    volumes = [np.ascontiguousarray(np.moveaxis(x[:, 0].numpy(), 0, SLICE_AXIS)) for x in (altered, lesion)]
    record = replace(prepared.record, pathology=pathology)
    # Noise seeds depend on the content, and this is no longer the healthy scan.
    changed = replace(scan, image=volumes[0].astype(np.float32), content=scan.content + pathology.encode())
    return AnnotatedScan(record, changed, volumes[1])
