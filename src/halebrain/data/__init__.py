"""Training data: data sets, splits, slices from manifests, synthetic anomalies, augmentation."""
