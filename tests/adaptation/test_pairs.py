"""The pairs of an adaptation hold what the model's segmenter looks at."""

from pathlib import Path

import numpy as np
import pytest
import torch

from halebrain.adaptation.config import AdaptConfig
from halebrain.adaptation.pairs import open_pairs
from halebrain.core.config import load_config
from halebrain.data.slices import SliceStore
from halebrain.io.manifest import ScanRecord
from halebrain.models.bundle import Bundle, ModelConfig, build_networks
from halebrain.models.reconstruction import ReconstructorSpec
from halebrain.models.segmentation import SegmenterConfig

UNET = {"channels": [8, 8], "blocks_per_level": 1, "patch": 4, "norm_groups": 4, "attention_head_channels": 0}


def model(neighbours: tuple[int, ...]) -> Bundle:
    torch.manual_seed(1)
    config = ModelConfig(
        kind="detector",
        reconstructor=ReconstructorSpec(name="ddpm", settings={"unet": UNET}),
        segmenter=SegmenterConfig(channels=(8, 16), patch=2, encoder="early", neighbours=neighbours),
    )
    networks = build_networks(config)
    return Bundle(config, *(network.eval().requires_grad_(False) for network in networks if network), {}, {})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["annotated", "synthetic"])
@pytest.mark.parametrize("neighbours", [(), (-2, 1)])
def test_pairs_show_the_neighbours_that_the_segmenter_looks_at(
    kind: str, neighbours: tuple[int, ...], tmp_path: Path
) -> None:
    labels = np.zeros((6, 32, 32), dtype=np.uint8)
    labels[:, 4:28, 4:28] = 1
    labels[:3, 10:16, 10:16] = 3
    images = ((0.3 + 0.05 * np.arange(6)[:, None, None]) * (labels > 0)).astype(np.float16)
    store = SliceStore((images,), (labels,), (ScanRecord(subject="x", image=Path("x.nii"), modality="T1w"),))
    config = load_config(AdaptConfig, None, ["tuning.draws=1", "tuning.synthetic_slices=4"])
    pairs = open_pairs(kind, store, model(neighbours), config, tmp_path).pairs[0]
    assert pairs.shape[1:] == (3 + len(neighbours), 32, 32)
    if neighbours and kind == "annotated":
        np.testing.assert_array_equal(pairs[2:, 3], images[:4])
        np.testing.assert_array_equal(pairs[:5, 4], images[1:])
