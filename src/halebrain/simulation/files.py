"""What a virtual cohort writes: the files of each subject with their manifest rows, and those of the data set."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import halebrain
from halebrain.core.files import atomic_folder, write_text
from halebrain.core.types import TEMPLATE_SPACE
from halebrain.io.bids import SUFFIXES
from halebrain.io.bids_derivative import DESCRIPTION
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


def write_dataset_files(
    output: Path, cohort: dict[str, Any], *, modalities: Sequence[str], ignored: Sequence[str]
) -> None:
    """Write the description of a cohort, a sidecar for each of its contrasts, and `.bidsignore`.

    Args:
        output: The cohort.
        cohort: What it was made with.
        modalities: Its contrasts.
        ignored: Patterns of files that are ours and none of BIDS's.

    Raises:
        CannotWriteError: The folder cannot be written.
    """
    description = {
        "Name": "HaleBrain virtual cohort",
        "BIDSVersion": "1.11.0",
        "DatasetType": "derivative",
        "License": "CC0",
        "GeneratedBy": [{"Name": "halebrain", "Version": halebrain.__version__}],
        "Cohort": cohort,
        "Description": "Synthetic images made from the MNI152NLin2009aSym template; no person was scanned.",
        "ReferencesAndLinks": ["Fonov V. et al., NeuroImage 2011, doi:10.1016/j.neuroimage.2010.07.033"],
    }
    named = [modality for modality in modalities if modality in SUFFIXES]
    for modality in named:
        # At the top, where it holds for every subject's image of that contrast.
        about = {"Description": f"Virtual {modality}, inside the brain only.", "SkullStripped": True}
        write_text(output / f"{modality}.json", json.dumps(about, indent=2) + "\n")
    # Contrasts that no scanner has ("random") are none of BIDS's suffixes.
    unnamed = [f"**/*_{modality}.nii.gz" for modality in modalities if modality not in named]
    write_text(output / ".bidsignore", "\n".join([*ignored, *unnamed]) + "\n")
    write_text(output / DESCRIPTION, json.dumps(description, indent=2) + "\n")
