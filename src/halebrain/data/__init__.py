"""Floor 3: what the networks learn from (cohorts, manifests turned into slices, synthetic anomalies, augmentation)."""
