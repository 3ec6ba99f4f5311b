"""What is shown and recorded with every result: the notice, and the versions that it depends on."""

import platform

import halebrain

NOTICE = "Research use only. Not a medical device."


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    import numpy as np
    import torch

    return {
        "halebrain": halebrain.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
