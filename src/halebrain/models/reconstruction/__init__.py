"""Reconstructors: networks that compute a pseudo-healthy slice. One line here for each."""

from halebrain.models.reconstruction.autoencoder import AE, VAE
from halebrain.models.reconstruction.base import RECONSTRUCTORS, Reconstructor, build_reconstructor
from halebrain.models.reconstruction.diffusion import CDDPM, DDPM, PDDPM, AnoDDPM
from halebrain.models.reconstruction.features import FAE, RD
from halebrain.models.reconstruction.restoration import DAE, Disyre, Restoration

__all__ = [
    "AE",
    "CDDPM",
    "DAE",
    "DDPM",
    "FAE",
    "PDDPM",
    "RD",
    "RECONSTRUCTORS",
    "VAE",
    "AnoDDPM",
    "Disyre",
    "Reconstructor",
    "Restoration",
    "build_reconstructor",
]
