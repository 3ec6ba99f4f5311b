"""Fine-tuning from pairs: a shorter run is the beginning of a longer one, and it goes on where it stopped."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from halebrain.core.config import parse_config
from halebrain.core.errors import ConfigError
from halebrain.models.ensemble import Ensemble, EnsembleMember
from halebrain.models.segmentation import Segmenter, SegmenterConfig
from halebrain.training.adaptation import TuningConfig, adaptation_stage, fine_tune
from halebrain.training.pairs import PairStore

# Lightning warns about the machine, not about the run.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning.*")

LOOP = {"batch_size": 4, "lr": 1e-2, "precision": "32-true", "validate_every": 3, "keep": "last"}
LOOP |= {"validation_batches": 1, "checkpoint_every": 3, "log_every": 1, "ema_decay": 0.5}


def pairs(seed: int) -> PairStore:
    rng = np.random.default_rng(seed)
    found = np.zeros((8, 3, 16, 16), np.float16)
    found[:, :2] = rng.random((8, 2, 16, 16))
    found[:, 2] = 1
    found[:, 2, 4:9, 4:9] = 3
    found[:, 0, 4:9, 4:9] += 0.5
    return PairStore((found,), (str(seed),))


def tuned(
    folder: Path, steps: int, seen: list[int] | None = None, stop: int = 0, weight: float = 0.5
) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    segmenter = Segmenter(SegmenterConfig(channels=(8, 16), patch=2)).eval().requires_grad_(False)
    config = TuningConfig(loop={**LOOP, "steps": steps}, original_weight=weight)  # type: ignore[arg-type]

    def watch(step: int, _weights: dict[str, torch.Tensor]) -> None:
        if seen is not None:
            seen.append(step)
        if step == stop:
            raise KeyboardInterrupt

    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    stores = {"annotated": pairs(1), "synthetic": pairs(2), "val": pairs(3)}
    fine_tune(segmenter, stores, config, folder, fabric=fabric, seed=0, name="t", identity="i", on_validated=watch)
    assert not any(p.requires_grad for p in segmenter.parameters())
    assert not segmenter.training
    return segmenter.state_dict()


def test_the_result_lies_between_before_and_after(tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = Segmenter(SegmenterConfig(channels=(8, 16), patch=2)).state_dict()
    half, after = (tuned(tmp_path / str(share), 6, weight=share) for share in (0.5, 0.0))
    for name, weight in half.items():
        torch.testing.assert_close(weight, (before[name] + after[name]) / 2)
    assert any((after[name] - weight).abs().max() > 1e-3 for name, weight in before.items())


def test_a_shorter_run_is_the_beginning_of_a_longer_one(tmp_path: Path) -> None:
    snapshots: dict[int, dict[str, torch.Tensor]] = {}
    torch.manual_seed(0)
    segmenter = Segmenter(SegmenterConfig(channels=(8, 16), patch=2))
    config = TuningConfig(loop={**LOOP, "steps": 9})  # type: ignore[arg-type]
    fine_tune(
        segmenter,
        {"annotated": pairs(1), "synthetic": pairs(2), "val": pairs(3)},
        config,
        tmp_path / "long",
        fabric=Fabric(accelerator="cpu", devices=1, precision="32-true"),
        seed=0,
        name="t",
        identity="i",
        on_validated=lambda step, weights: snapshots.update({step: {k: v.clone() for k, v in weights.items()}}),
    )
    assert list(snapshots) == [3, 6, 9]
    short = tuned(tmp_path / "short", 6)
    for name, value in short.items():
        assert torch.equal(value, snapshots[6][name]), name
    assert any(not torch.equal(snapshots[3][name], value) for name, value in short.items())


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path / "stopped", 9, stop=6)
    whole, resumed = tuned(tmp_path / "whole", 9), tuned(tmp_path / "stopped", 9, seen)
    assert seen[-1] == 9
    assert 3 not in seen
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("rehearsed", "expected"),
    [(False, {"annotated": 4, "synthetic": 4}), (True, {"annotated": 3, "synthetic": 2, "rehearsed": 3})],
)
def test_rehearsal_takes_its_share_of_a_batch(rehearsed: bool, expected: dict[str, int]) -> None:
    stores = {"annotated": pairs(1), "synthetic": pairs(2), "val": pairs(3)}
    if rehearsed:
        stores["rehearsed"] = pairs(4)
    segmenter = Segmenter(SegmenterConfig(channels=(8, 16), patch=2))
    stage = adaptation_stage(segmenter, stores, TuningConfig(), seed=0)
    names = {id(store): name for name, store in stores.items()}
    assert {names[id(draw.store)]: draw.count for draw in stage.draws["train"]} == expected
    assert [names[id(draw.store)] for draw in stage.draws["val"]] == ["val"]


@pytest.mark.parametrize(
    ("loop", "said"),
    [
        ({"lr_schedule": "cosine"}, "must be constant"),
        ({"keep": "best"}, "must be constant"),
        ({"steps": 10}, "must divide"),
    ],
)
def test_settings_that_cannot_be(loop: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config(TuningConfig, {"loop": {**LOOP, "steps": 9, **loop}})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rehearsed_fraction": 0.95}, "at least one annotated slice in a batch of 8"),
        ({"synthetic_fraction": 0.97}, "at least one annotated slice"),
        ({"rehearsed_fraction": 0.8, "synthetic_fraction": 0.9}, "at least one annotated slice"),
        ({"synthetic_fraction": 0.05}, "at least one synthetic slice in a batch of 8, or be 0"),
        ({"rehearsed_fraction": 0.05}, "at least one rehearsed slice"),
    ],
)
def test_a_batch_without_a_kind_of_slices_that_is_wanted_is_refused(settings: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config(TuningConfig, {**settings, "loop": {**LOOP, "steps": 9, "batch_size": 8}})
    counts = TuningConfig(rehearsed_fraction=0.8, synthetic_fraction=0.4).counts(rehearses=True)
    assert counts == {"annotated": 1, "synthetic": 1, "rehearsed": 6}


def test_only_the_networks_of_the_contrasts_that_are_shown_are_tuned(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = {"channels": (8, 16), "patch": 2}
    members = [EnsembleMember(**small, contrasts=(name,)) for name in ("T1w", "T2w")]  # type: ignore[arg-type]
    segmenter = Ensemble(members).eval()
    before = {name: weight.clone() for name, weight in segmenter.state_dict().items()}
    stores = {kind: replace(pairs(1), modalities=("T2w",)) for kind in ("annotated", "synthetic", "val")}
    config = TuningConfig(loop={**LOOP, "steps": 3})  # type: ignore[arg-type]
    fine_tune(
        segmenter,
        stores,
        config,
        tmp_path,
        fabric=Fabric(accelerator="cpu", devices=1, precision="32-true"),
        seed=0,
        name="x",
        identity="x",
    )
    moved = {
        name.startswith("members.1.")
        for name, weight in segmenter.state_dict().items()
        if not torch.equal(weight, before[name])
    }
    assert moved == {True}
