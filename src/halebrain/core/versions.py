"""The versions that a result depends on, for provenance."""

import platform

import numpy as np
import torch

import halebrain


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {
        "halebrain": halebrain.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
