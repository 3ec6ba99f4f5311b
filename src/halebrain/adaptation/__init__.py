"""Adaptation: a model's segmenter fine-tuned on a user's few annotated scans, and evaluated on unseen ones."""
