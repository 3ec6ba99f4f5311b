"""Floor 7: metrics, statistics and thresholds; scores anyone's maps from disk and never runs a network."""
