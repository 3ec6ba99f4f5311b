"""Floor 1: what is on disk (scans of any format, manifests), checked on the way in and written whole or not at all."""
