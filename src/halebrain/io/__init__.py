"""Files on disk (scans of any format, manifests), checked on reading and written completely or not at all."""
