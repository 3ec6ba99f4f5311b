"""Reconstructors: networks that compute a pseudo-healthy slice. One name here for each file."""

from halebrain.models.reconstruction import autoencoder, diffusion, features, restoration
from halebrain.models.reconstruction.base import RECONSTRUCTORS, Reconstructor, build_reconstructor

__all__ = ["RECONSTRUCTORS", "Reconstructor", "build_reconstructor"]
