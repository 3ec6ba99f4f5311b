import os
from pathlib import Path

import numpy as np
import pytest
import torch

from halebrain.core.progress import SETTINGS

SETTINGS.enabled = False
# Tests run two at a time; more threads than cores would wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data():
    """The folder of real MRI, or a skip that says how to give it."""
    folder = Path(os.environ.get("HALEBRAIN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real MRI not found at {folder}; set HALEBRAIN_TEST_DATA")
    return folder


@pytest.fixture
def rng():
    return np.random.default_rng(0)
