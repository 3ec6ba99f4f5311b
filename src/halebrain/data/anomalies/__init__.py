"""Synthetic anomalies: one file and one line here for each."""

from halebrain.data.anomalies.base import ANOMALIES, AnomalyGenerator, AnomalySpec, build_anomaly
from halebrain.data.anomalies.blobs import BlobsAnomaly
from halebrain.data.anomalies.cohort import CohortAnomaly
from halebrain.data.anomalies.cutpaste import CutPasteAnomaly
from halebrain.data.anomalies.dag import DagAnomaly
from halebrain.data.anomalies.deformation import DeformationAnomaly
from halebrain.data.anomalies.fpi import FpiAnomaly
from halebrain.data.anomalies.mixture import MixtureAnomaly
from halebrain.data.anomalies.perlin import PerlinAnomaly
from halebrain.data.anomalies.poisson import PoissonAnomaly

__all__ = [
    "ANOMALIES",
    "AnomalyGenerator",
    "AnomalySpec",
    "BlobsAnomaly",
    "CohortAnomaly",
    "CutPasteAnomaly",
    "DagAnomaly",
    "DeformationAnomaly",
    "FpiAnomaly",
    "MixtureAnomaly",
    "PerlinAnomaly",
    "PoissonAnomaly",
    "build_anomaly",
]
