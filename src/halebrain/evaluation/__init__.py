"""Layer 7: metrics, statistics and thresholds; evaluates maps from disk and never runs a network."""
