"""Metrics: one file and one name here for each family."""

from halebrain.evaluation.metrics import brats, lesionwise, surface, voxelwise
from halebrain.evaluation.metrics.base import METRICS, EmptyPolicy, Metric

__all__ = ["METRICS", "EmptyPolicy", "Metric"]
