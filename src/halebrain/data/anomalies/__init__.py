"""Synthetic anomalies: one file and one line here for each."""

from halebrain.data.anomalies.base import ANOMALIES
from halebrain.data.anomalies.base import AnomalyGenerator
from halebrain.data.anomalies.base import AnomalySpec
from halebrain.data.anomalies.base import build_anomaly
from halebrain.data.anomalies.perlin import PerlinAnomaly

__all__ = ["ANOMALIES", "AnomalyGenerator", "AnomalySpec", "PerlinAnomaly", "build_anomaly"]
