"""Reconstructors: networks that give back a pseudo-healthy slice. One file and one line here for each."""

from halebrain.models.reconstruction.anoddpm import AnoDDPM
from halebrain.models.reconstruction.base import RECONSTRUCTORS, Reconstructor, build_reconstructor
from halebrain.models.reconstruction.cddpm import CDDPM
from halebrain.models.reconstruction.ddpm import DDPM
from halebrain.models.reconstruction.pddpm import PDDPM

__all__ = ["CDDPM", "DDPM", "PDDPM", "RECONSTRUCTORS", "AnoDDPM", "Reconstructor", "build_reconstructor"]
