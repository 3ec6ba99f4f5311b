"""Adaptation: a model's segmenter fine-tuned on a user's few annotated scans, and judged on those it did not see."""
