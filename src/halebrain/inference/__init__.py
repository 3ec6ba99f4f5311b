"""From one scan to its anomaly maps, and from a list of scans to a folder of results."""
