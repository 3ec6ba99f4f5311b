"""Training one cell of a benchmark: the same functions as `halebrain train`."""

import shutil
from pathlib import Path

import torch

from halebrain.benchmarking.plan import Cell
from halebrain.core.config import parse_config, with_former_keys
from halebrain.io.checksum import json_sha256
from halebrain.io.manifest import Manifest
from halebrain.models.bundle import Bundle, load_bundle, save_bundle
from halebrain.models.card import model_card
from halebrain.training.fabric import launch
from halebrain.training.joint import JointTraining, train_joint
from halebrain.training.loop_state import CHECKPOINT
from halebrain.training.reconstructor import ReconstructorTraining, train_reconstructor
from halebrain.training.segmenter import train_segmenter
from halebrain.training.segmenter_config import SegmenterTraining


def training_identity(cell: Cell, manifest: Manifest, needed: str) -> str:
    """Return a hash of all that a cell's model depends on.

    Args:
        cell: The cell.
        manifest: All scans.
        needed: The same of the cell that it stands on; "" where there is none.
    """
    return json_sha256([cell.kind, cell.seed, with_former_keys(cell.settings), manifest.fingerprint(), needed])


def train_cell(
    cell: Cell, folder: Path, manifest: Path, cache: Path, stage1: Path | None, *, device: torch.device
) -> Bundle:
    """Train, resume or just load the model of a cell, and return it; its bundle is `folder`/model.

    Args:
        cell: The cell.
        folder: Its own.
        manifest: The table of scans.
        cache: Preprocessed slices, shared by all cells.
        stage1: The reconstructor's bundle, for a segmenter.
        device: Where to train.
    """
    model = folder / "model"
    if not model.exists():
        folder.mkdir(parents=True, exist_ok=True)
        data = {**cell.settings.get("data", {}), "manifest": str(manifest), "cache": str(cache)}
        bundle = _train({**cell.settings, "data": data}, cell, folder, stage1, device)
        save_bundle(bundle, model, card=model_card(bundle))
        # The run is over, and its optimiser is as large as three models.
        (folder / CHECKPOINT).unlink(missing_ok=True)
        shutil.rmtree(folder / "cache", ignore_errors=True)
    return load_bundle(model, device=device)


def _train(settings: dict[str, object], cell: Cell, folder: Path, stage1: Path | None, device: torch.device) -> Bundle:
    if cell.kind == "reconstructor":
        first = parse_config(ReconstructorTraining, settings, where=cell.key)
        return train_reconstructor(first, folder, fabric=launch(first.loop, device))
    if cell.kind == "joint":
        both = parse_config(JointTraining, settings, where=cell.key)
        return train_joint(both, folder, fabric=launch(both.loop, device))
    assert stage1 is not None
    second = parse_config(SegmenterTraining, settings, where=cell.key)
    return train_segmenter(second, load_bundle(stage1), folder, fabric=launch(second.loop, device))
