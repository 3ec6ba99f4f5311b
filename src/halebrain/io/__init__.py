"""Floor 1: what is on disk (NIfTI, manifests), checked on the way in and written whole or not at all."""
