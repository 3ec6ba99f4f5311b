"""Rehearsal: virtual patients like those in the model's training data, used during adaptation to a few real scans.

A few scans, seen hundreds of times, teach the segmenter that everything else in them is normal. The cohort
generator is part of the package, so virtual patients can be made again wherever a model is adapted.
"""

from pathlib import Path

from halebrain.adaptation.config import AdaptConfig
from halebrain.adaptation.inherited_settings import STAGES
from halebrain.core.modality import standard_modality
from halebrain.core.random import derive_seed
from halebrain.io.manifest import Manifest
from halebrain.models.bundle import Bundle
from halebrain.simulation.config import CohortConfig
from halebrain.simulation.contrast_params import MODALITIES
from halebrain.simulation.generate import generate_cohort
from halebrain.simulation.pathology import PATHOLOGIES


def rehearsed_diseases(bundle: Bundle) -> tuple[str, ...]:
    """Return the diseases in the model's training data that have virtual patients, sorted."""
    said = {name for stage in STAGES for name in bundle.training.get(stage, {}).get("pathologies", ())}
    return tuple(sorted(said & set(PATHOLOGIES.names())))


def virtual_patients(bundle: Bundle, annotated: Manifest, config: AdaptConfig, folder: Path) -> Manifest | None:
    """Return virtual people of the model's diseases in the contrasts of the annotated scans; made where absent.

    Args:
        bundle: The model.
        annotated: The scans that it is adapted to.
        config: How many; the same seed gives the same people.
        folder: Where they are kept.

    Returns:
        `None` if no patients are requested, or the model did not learn from any such disease, or the contrasts have no
        virtual scans.
    """
    shown = {standard_modality(record.modality) for record in annotated}
    modalities, diseases = tuple(name for name in MODALITIES if name in shown), rehearsed_diseases(bundle)
    if not (config.rehearses and modalities and diseases):
        return None
    cohort = CohortConfig(
        healthy=config.rehearsal.healthy,
        patients=config.rehearsal.patients,
        modalities=modalities,
        pathologies=diseases,
        seed=derive_seed(config.seed, "rehearsal") % 2**31,
        variety="wide",
    )
    return generate_cohort(folder, cohort)
