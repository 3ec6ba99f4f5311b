"""Types, registry, configuration, errors, randomness. Independent of MRI files and networks."""
