"""BIDS derivative files of a virtual cohort: its descriptions, sidecars and ignored files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import halebrain
from halebrain.core.files import write_text
from halebrain.io.bids import SUFFIXES
from halebrain.io.bids_derivative import DESCRIPTION


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
