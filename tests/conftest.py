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


@pytest.fixture(scope="session")
def make_case():
    """Make a case from small arrays; 1-D ones become a row of voxels, and every voxel counts."""
    from halebrain.evaluation.case import Case

    def solid(array, dtype):
        array = np.asarray(array, dtype=dtype)
        return array.reshape(-1, 1, 1) if array.ndim == 1 else array

    def make(reference, *, score=None, mask=None, region=None, spacing_mm=(1.0, 1.0, 1.0), **about):
        reference = solid(reference, bool)
        about = {"scan_id": "sub-a_FLAIR", "subject": "a", "modality": "FLAIR", "pathology": "ms"} | about
        return Case(
            reference=reference,
            region=np.ones(reference.shape, bool) if region is None else solid(region, bool),
            spacing_mm=spacing_mm,
            score=None if score is None else solid(score, np.float32),
            mask=None if mask is None else solid(mask, bool),
            **about,
        )

    return make


@pytest.fixture(scope="session")
def untrained_model(tmp_path_factory):
    """A small model bundle with random weights: enough for geometry, refusals and formats."""
    from halebrain.models.bundle import Bundle, ModelConfig, build_networks, save_bundle

    unet = {"channels": [8, 8], "blocks_per_level": 1, "patch": 4, "norm_groups": 4, "attention_head_channels": 0}
    config = ModelConfig(
        kind="detector",
        reconstructor={"name": "ddpm", "settings": {"unet": unet, "noise": "gaussian", "test_levels": [500]}},
        segmenter={"channels": [8, 16], "patch": 2},
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "model"
    save_bundle(Bundle(config, *build_networks(config), {}, {}), folder, card="untrained")
    return folder
