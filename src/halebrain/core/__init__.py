"""Floor 0: types, registry, configuration, errors, randomness. Knows nothing of MRI files or networks."""
