"""Synthetic anomalies: one file and one name here for each."""

from halebrain.data.anomalies import blobs, cohort, cutpaste, dag, deformation, fluid, fpi, mixture, perlin, poisson
from halebrain.data.anomalies.base import ANOMALIES, AnomalyGenerator, AnomalySpec, build_anomaly

__all__ = ["ANOMALIES", "AnomalyGenerator", "AnomalySpec", "build_anomaly"]
