"""Layer 0: types, registry, configuration, errors, randomness. Independent of MRI files and networks."""
