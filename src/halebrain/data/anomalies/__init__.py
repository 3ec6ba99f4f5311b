"""Synthetic anomalies: one file and one line here for each."""

from halebrain.data.anomalies.base import ANOMALIES, AnomalyGenerator, AnomalySpec, build_anomaly
from halebrain.data.anomalies.perlin import PerlinAnomaly

__all__ = ["ANOMALIES", "AnomalyGenerator", "AnomalySpec", "PerlinAnomaly", "build_anomaly"]
