"""The folder that is HaleBrain's own on a machine: models that were imported, weights of others."""

import os
from pathlib import Path

VARIABLE = "HALEBRAIN_HOME"


def halebrain_home() -> Path:
    """Return what `HALEBRAIN_HOME` names, or `~/.halebrain`; it need not exist."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".halebrain"
