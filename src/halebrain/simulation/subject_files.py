"""The files of one virtual subject, and its manifest rows."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from halebrain.core.files import atomic_folder, write_text
from halebrain.core.types import TEMPLATE_SPACE
from halebrain.io.manifest import ScanRecord
from halebrain.io.nifti import write_volume
from halebrain.simulation.subject import SubjectImages, SubjectParams

PARAMETERS = "parameters.json"
"""What was drawn of a subject, in its folder."""


def write_subject(folder: Path, params: SubjectParams, images: SubjectImages) -> None:
    """Write images, masks and parameters of a subject, all or nothing."""
    subject, affine = params.subject, images.anatomy.grid.affine
    with atomic_folder(folder, overwrite=True) as temporary:
        stem = temporary / "anat" / f"sub-{subject}_space-{TEMPLATE_SPACE}"
        for modality, image in images.scans.items():
            _write(stem, modality, image, affine)
        for modality, image in images.healthy.items():
            _write(stem, f"desc-healthy_{modality}", image, affine)
        _write(stem, "desc-brain_mask", images.brain_mask, affine)
        if images.lesion is not None:
            _write(stem, "label-lesion_mask", images.lesion, affine)
        write_text(temporary / PARAMETERS, params.model_dump_json(indent=1) + "\n")


def _write(stem: Path, suffix: str, image: torch.Tensor, affine: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    path = stem.with_name(f"{stem.name}_{suffix}.nii.gz")
    if image.dtype == torch.bool:
        write_volume(path, image.numpy().astype(np.uint8), affine, dtype=np.uint8, space=TEMPLATE_SPACE)
    else:
        # Intensities of arbitrary units, as scanners give them.
        write_volume(path, (image * 1000).round().numpy(), affine, dtype=np.int16, space=TEMPLATE_SPACE)


def subject_records(folder: Path, params: SubjectParams, split: str) -> list[ScanRecord]:
    """Return a row for each scan of a subject whose files lie in `folder`."""
    stem = folder / "anat" / f"sub-{params.subject}_space-{TEMPLATE_SPACE}"

    def file(suffix: str) -> Path:
        return stem.with_name(f"{stem.name}_{suffix}.nii.gz")

    is_patient = params.lesions is not None
    return [
        ScanRecord(
            subject=params.subject,
            image=file(contrast.modality),
            modality=contrast.modality,
            brain_mask=file("desc-brain_mask"),
            lesion=file("label-lesion_mask") if is_patient else None,
            healthy=file(f"desc-healthy_{contrast.modality}") if is_patient else None,
            space=TEMPLATE_SPACE,
            split=split,
            pathology=params.pathology,
            site=acquisition.site,
            age=params.anatomy.age,
            sex=params.sex,
        )
        for contrast, acquisition in zip(params.contrasts, params.acquisitions, strict=True)
    ]
