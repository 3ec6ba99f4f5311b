"""Reconstructors: networks that compute a pseudo-healthy slice. One file and one line here for each."""

from halebrain.models.reconstruction.autoencoder import AE, VAE
from halebrain.models.reconstruction.base import RECONSTRUCTORS, Reconstructor, build_reconstructor
from halebrain.models.reconstruction.dae import DAE
from halebrain.models.reconstruction.diffusion import CDDPM, DDPM, AnoDDPM
from halebrain.models.reconstruction.disyre import Disyre
from halebrain.models.reconstruction.fae import FAE
from halebrain.models.reconstruction.pddpm import PDDPM
from halebrain.models.reconstruction.rd import RD
from halebrain.models.reconstruction.restoration import Restoration

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
