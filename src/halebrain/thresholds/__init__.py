"""Everything about thresholds: fitted, stored, chosen for a scan, and put into words."""
