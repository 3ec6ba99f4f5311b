"""The virtual cohort: healthy brains and patients with exact ground truth, made from the MNI152 template."""

from halebrain.data.cohort import diseases

__all__ = ["diseases"]
