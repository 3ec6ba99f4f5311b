"""The small untrained model that bundles, detections and results are made with."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any


@functools.cache
def files() -> dict[str, bytes]:
    """Return the files of a detector with random weights on a coarse grid, without registration."""
    import torch

    from halebrain.models.bundle import Bundle, ModelConfig, build_networks, save_bundle

    unet = {"channels": [8, 8], "blocks_per_level": 1, "patch": 4, "norm_groups": 4, "attention_head_channels": 0}
    config: dict[str, Any] = {
        "kind": "detector",
        "reconstructor": {"name": "ddpm", "settings": {"unet": unet, "noise": "gaussian", "test_levels": [500]}},
        "segmenter": {"channels": [8, 16], "patch": 2},
        "preprocessing": {"shape": [32, 32, 24], "spacing_mm": 8.0, "registration": "none", "bias_correction": "none"},
        "postprocessing": {"residual": "positive", "median_size": 1},
    }
    torch.manual_seed(0)
    about = {"method": "m", "split": "val", "manifest_sha256": "0", "n_scans": 9, "achieved": 0.1}
    calibration = {
        "default": "dice",
        "thresholds": {"dice": {"value": 0.5, **about}},
        "subjects": ["s1"],
        "modalities": {"FLAIR": {"dice": {"value": 0.4, **about, "modalities": ["FLAIR"]}}},
        "healthy_scores": {"FLAIR": [0.1, 0.2, 0.3]},
    }
    training = {"stage2": {"train_subjects": ["a"], "val_subjects": [], "modalities": ["FLAIR"], "pathologies": ["ms"]}}
    made = ModelConfig.model_validate(config)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model"
        save_bundle(Bundle(made, *build_networks(made), training, calibration), place, card="# untrained\n")
        return {path.name: path.read_bytes() for path in sorted(place.iterdir())}


@functools.cache
def folder() -> Path:
    """Return a folder with the model, for as long as this process lives."""
    place = Path(tempfile.mkdtemp(prefix="fuzz-model-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    for name, raw in files().items():
        (place / name).write_bytes(raw)
    return place
