"""The virtual cohort: healthy brains and patients with exact ground truth, made from the MNI152 template."""

from halebrain.simulation import diseases, masses

__all__ = ["diseases", "masses"]
