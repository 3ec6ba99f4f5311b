"""Layer 3: training data (virtual cohorts, slices from manifests, synthetic anomalies, augmentation)."""
