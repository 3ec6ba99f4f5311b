"""Reconstructors: networks that compute a pseudo-healthy slice. One name here for each file."""

from halebrain.models.reconstruction import (
    autoencoder,
    diffusion,
    features,
    inpainting,
    itermask,
    reflect,
    restoration,
    second_look,
)
from halebrain.models.reconstruction.base import RECONSTRUCTORS, Reconstructor, ReconstructorSpec, build_reconstructor

__all__ = ["RECONSTRUCTORS", "Reconstructor", "ReconstructorSpec", "build_reconstructor"]
