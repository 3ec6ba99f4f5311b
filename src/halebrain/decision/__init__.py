"""Decisions from an anomaly map: threshold by contrast, and percentile of the scan among healthy scans."""
