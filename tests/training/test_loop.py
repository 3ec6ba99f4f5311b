"""The loop: exact resume, refusal of other settings, moving average, learning rate, interruption."""

import contextlib
import csv
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn

from halebrain.core.errors import ConfigError, WorkerError
from halebrain.training.devices import launch
from halebrain.training.loop import Stage, train
from halebrain.training.loop_config import LoopConfig
from halebrain.training.loop_state import CHECKPOINT, LOG
from halebrain.training.prefetch import prefetch, translate_worker_death

# Lightning warns about the machine (worker counts, a calling context that it cannot see), not about the run.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning.*")

TRUTH = torch.tensor([[1.0, -2.0, 0.5]])


class Toy(Stage):
    """Linear regression whose batches depend on the step alone."""

    def __init__(self, *, fail_at: int | None = None, error: type[BaseException] = RuntimeError) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.trained = nn.Linear(3, 1)
        self.fail_at, self.error = fail_at, error
        self.validation_losses: list[float] | None = None
        self.validations = 0

    def forward(self, split: str, step: int, drawn: object = None) -> torch.Tensor:
        if split == "train" and step == self.fail_at:
            raise self.error("killed")
        generator = torch.Generator().manual_seed(step + (10_000 if split == "val" else 0))
        x = torch.randn(16, 3, generator=generator)
        y = x @ TRUTH.T + 1 + 0.1 * torch.randn(16, 1, generator=generator)
        loss = (self.trained(x) - y).square().mean()
        if split == "val" and self.validation_losses is not None:
            self.validations += 1
            return loss * 0 + self.validation_losses[self.validations - 1]
        return loss


def config(**changes: object) -> LoopConfig:
    settings = {
        "steps": 8, "batch_size": 16, "lr": 0.05, "warmup_steps": 2, "lr_schedule": "cosine", "ema_decay": 0.9,
        "precision": "32-true", "validate_every": 2, "validation_batches": 2, "checkpoint_every": 4, "log_every": 1,
        "weight_decay": 0.01,
    }  # fmt: skip
    return LoopConfig(**(settings | changes))  # type: ignore[arg-type]


def go(stage: Stage, settings: LoopConfig, folder: Path, identity: str = "", workers: int = 0, content: str = ""):
    folder.mkdir(exist_ok=True)
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    return train(stage, settings, folder, fabric=fabric, name="t", identity=identity, content=content, workers=workers)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / LOG).open(newline="") as handle:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(handle)]


def checkpoint(folder: Path) -> dict:
    return torch.load(folder / CHECKPOINT, weights_only=True)


def assert_same_state(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


@pytest.mark.parametrize("keep", ["best", "last"])
def test_killed_and_resumed_is_the_unbroken_run_to_the_bit(tmp_path: Path, keep: str) -> None:
    whole = go(Toy(), config(keep=keep), tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        go(Toy(fail_at=6), config(keep=keep), tmp_path / "broken")
    assert checkpoint(tmp_path / "broken")["step"] == 4
    assert [r["step"] for r in rows(tmp_path / "broken")] == ["1", "2", "3", "4", "5", "6"]
    resumed = go(Toy(), config(keep=keep), tmp_path / "broken")

    assert_same_state(whole.weights, resumed.weights)
    assert (whole.step, whole.validation_loss) == (resumed.step, resumed.validation_loss)
    a, b = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "broken")
    for part in ("trained", "average"):
        assert_same_state(a[part], b[part])
    for moments_a, moments_b in zip(a["optimizer"]["state"].values(), b["optimizer"]["state"].values(), strict=True):
        assert_same_state(moments_a, moments_b)
    assert rows(tmp_path / "whole") == rows(tmp_path / "broken")
    assert [r["step"] for r in rows(tmp_path / "whole")] == [str(n) for n in range(1, 9)]


def test_the_end_of_a_finished_run_is_returned_without_another_step(tmp_path: Path) -> None:
    first = go(Toy(), config(), tmp_path)
    log = (tmp_path / LOG).read_text()
    again = go(Toy(fail_at=0), config(), tmp_path)
    assert_same_state(first.weights, again.weights)
    assert (tmp_path / LOG).read_text() == log


def test_other_data_or_seeds_are_refused(tmp_path: Path) -> None:
    go(Toy(), config(), tmp_path, "one manifest, seed 0")
    with pytest.raises(ConfigError, match="another manifest, seed"):
        go(Toy(), config(), tmp_path, "another manifest, seed 0")
    go(Toy(), config(), tmp_path, "one manifest, seed 0")


def test_other_files_under_the_same_names_are_refused(tmp_path: Path) -> None:
    go(Toy(), config(), tmp_path, content="these")
    go(Toy(), config(), tmp_path, content="these")
    with pytest.raises(ConfigError, match="original scans, got other files under the same names"):
        go(Toy(), config(), tmp_path, content="others")
    older = checkpoint(tmp_path)
    del older["content"]
    torch.save(older, tmp_path / CHECKPOINT)
    go(Toy(), config(), tmp_path, content="others")


class Overflowing(Toy):
    """Whose third loss is infinite; an interrupt comes in the step after."""

    def forward(self, split: str, step: int, drawn: object = None) -> torch.Tensor:
        return super().forward(split, step) * (math.inf if step == 2 and split == "train" else 1)


@pytest.mark.parametrize("changes", [{}, {"log_every": 8, "validate_every": 8}])
def test_a_loss_that_is_not_finite_stops_the_run_before_anything_is_kept(tmp_path: Path, changes: dict) -> None:
    with pytest.raises(ConfigError, match=r"gradients must stay finite.*a lower loop\.lr"):
        go(Overflowing(), config(**changes), tmp_path)
    assert not (tmp_path / CHECKPOINT).exists()


class Diverging(Toy):
    """Whose losses are infinite from one step to another."""

    def __init__(self, begin: int, end: int) -> None:
        super().__init__()
        self.infinite = range(begin, end)

    def forward(self, split: str, step: int, drawn: object = None) -> torch.Tensor:
        return super().forward(split, step) * (math.inf if step in self.infinite and split == "train" else 1)


def test_on_a_processor_without_16_bit_gradients_they_are_checked_like_others(tmp_path: Path) -> None:
    settings = config(precision="16-mixed")
    fabric = launch(settings, torch.device("cpu"))
    assert fabric.strategy.precision.precision == "bf16-mixed"
    with pytest.raises(ConfigError, match="gradients must stay finite"):
        train(Diverging(2, 3), settings, tmp_path, fabric=fabric, name="t")


@pytest.mark.parametrize(("until", "stops"), [(4, False), (60, True)])
def test_16_bit_gradients_may_overflow_now_and_then_but_not_for_ever(tmp_path: Path, until: int, stops: bool) -> None:
    scaler = torch.amp.GradScaler("cpu")
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    settings = config(precision="16-mixed", steps=60, checkpoint_every=60, log_every=20, validate_every=60)
    with pytest.raises(ConfigError, match="must stay finite") if stops else contextlib.nullcontext():
        train(Diverging(2, until), settings, tmp_path, fabric=fabric, name="t")
    assert (tmp_path / CHECKPOINT).exists() is not stops


def test_an_interrupt_after_an_overflow_keeps_the_checkpoint_that_was_good(tmp_path: Path) -> None:
    settings = config(checkpoint_every=2, log_every=8, validate_every=8)
    with pytest.raises(KeyboardInterrupt):
        go(Overflowing(fail_at=3, error=KeyboardInterrupt), settings, tmp_path)
    assert checkpoint(tmp_path)["step"] == 2


def test_without_a_checkpoint_an_old_log_is_not_continued(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        go(Toy(fail_at=2), config(), tmp_path)
    assert not (tmp_path / CHECKPOINT).exists()
    go(Toy(), config(), tmp_path)
    assert [r["step"] for r in rows(tmp_path)] == [str(n) for n in range(1, 9)]


@pytest.mark.parametrize(("key", "value"), [("lr", 0.01), ("ema_decay", 0.5), ("steps", 9)])
def test_other_settings_are_refused_by_name(tmp_path: Path, key: str, value: float) -> None:
    go(Toy(), config(), tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(ConfigError, match=rf"another {key}\b") as caught:
        go(Toy(), config(**{key: value}), tmp_path)
    assert caught.value.exit_code == 78
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_an_interrupt_saves_the_state_and_the_run_goes_on_exactly(tmp_path: Path) -> None:
    whole = go(Toy(), config(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        go(Toy(fail_at=3, error=KeyboardInterrupt), config(), tmp_path / "broken")
    assert checkpoint(tmp_path / "broken")["step"] == 3
    resumed = go(Toy(), config(), tmp_path / "broken")
    assert_same_state(whole.weights, resumed.weights)
    assert rows(tmp_path / "whole") == rows(tmp_path / "broken")


def test_moving_average_follows_its_closed_form(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    class Watched(Toy):
        def forward(self, split: str, step: int, drawn: object = None) -> torch.Tensor:
            if split == "train":
                seen.append(self.trained.weight.detach().clone())  # the weights after `step` updates
            return super().forward(split, step)

    stage = Watched()
    result = go(stage, config(keep="last", ema_decay=0.15, validate_every=8), tmp_path)
    seen.append(checkpoint(tmp_path)["trained"]["weight"])
    average = seen[1]  # torch copies at the first update, then averages
    for count, current in enumerate(seen[2:], start=1):
        decay = min(0.15, (1 + count) / (10 + count))
        average = decay * average + (1 - decay) * current
    torch.testing.assert_close(result.weights["weight"], average, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(result.weights["weight"], seen[-1], atol=1e-4)


@pytest.mark.parametrize(("keep", "step", "loss"), [("best", 4, 1.0), ("last", 8, 3.0)])
def test_the_weights_of_the_chosen_step_are_kept(tmp_path: Path, keep: str, step: int, loss: float) -> None:
    stage = Toy()
    stage.validation_losses = [2.0, 1.0, 5.0, 3.0]  # at steps 2, 4, 6, 8
    result = go(stage, config(keep=keep, validation_batches=1), tmp_path / "whole")
    assert (result.step, result.validation_loss) == (step, loss)
    again = Toy(fail_at=step)  # step 8 is never taken, so that run ends by itself
    again.validation_losses = stage.validation_losses
    with contextlib.suppress(RuntimeError):
        go(again, config(keep=keep, validation_batches=1, checkpoint_every=1), tmp_path / "until")
    assert checkpoint(tmp_path / "until")["step"] == step
    average = {
        k.removeprefix("module."): v
        for k, v in checkpoint(tmp_path / "until")["average"].items()
        if k.startswith("module.")
    }
    assert_same_state(result.weights, average)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("warmup", [0, 3])
def test_learning_rate_closed_form(tmp_path: Path, schedule: str, warmup: int) -> None:
    go(Toy(), config(steps=10, lr=0.02, warmup_steps=warmup, lr_schedule=schedule), tmp_path)
    expected = []
    for step in range(10):
        lr = 0.02 * (min(1, (step + 1) / warmup) if warmup else 1)
        if schedule == "cosine":
            lr *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / 10))
        expected.append(lr)
    assert [float(r["lr"]) for r in rows(tmp_path)] == pytest.approx(expected, rel=1e-5)


def test_it_learns_and_nothing_is_nan(tmp_path: Path) -> None:
    settings = config(steps=300, lr_schedule="constant", weight_decay=0, clip_norm=10, validate_every=50)
    result = go(Toy(), settings, tmp_path)
    log = rows(tmp_path)
    assert all(math.isfinite(float(r[k])) for r in log for k in ("loss", "lr", "gradient_norm"))
    assert [r["step"] for r in log if r["val_loss"]] == ["50", "100", "150", "200", "250", "300"]
    torch.testing.assert_close(result.weights["weight"], TRUTH, atol=0.1, rtol=0)
    assert result.validation_loss < 0.03
    assert result.validation_loss == pytest.approx(min(float(r["val_loss"]) for r in log if r["val_loss"]), rel=1e-4)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    """With SGD-like single steps Adam hides the scale, so its first moment is read: (1 − β₁) × clipped gradient."""
    go(Toy(), config(steps=1, clip_norm=0.01), tmp_path)
    moments = [s["exp_avg"] for s in checkpoint(tmp_path)["optimizer"]["state"].values()]
    norm = math.sqrt(sum(float(m.square().sum()) for m in moments))
    assert norm == pytest.approx(0.1 * 0.01, rel=1e-3)
    assert float(rows(tmp_path)[0]["gradient_norm"]) > 0.1


def test_without_clipping_gradients_stay_as_they_are_and_are_still_checked(tmp_path: Path) -> None:
    go(Toy(), config(steps=1, clip_norm=None), tmp_path)
    moments = [s["exp_avg"] for s in checkpoint(tmp_path)["optimizer"]["state"].values()]
    norm = math.sqrt(sum(float(m.square().sum()) for m in moments))
    assert norm == pytest.approx(0.1 * float(rows(tmp_path)[0]["gradient_norm"]), rel=1e-3)


def test_a_stage_must_say_its_loss() -> None:
    with pytest.raises(TypeError, match="Stage must define"):
        Stage()("train", 0)


class Drawing(Toy):
    """The same regression, whose batches can be drawn in another process."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self.draw = draw_toy

    def forward(self, split: str, step: int, drawn: tuple[torch.Tensor, ...] | None = None) -> torch.Tensor:
        assert drawn is not None
        if split == "train" and step == self.fail_at:
            raise self.error("killed")
        x, y = drawn
        return (self.trained(x) - y).square().mean()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_batches_stay_as_they_were_drawn(tmp_path: Path, precision: str) -> None:
    class Watching(Drawing):
        def forward(self, split: str, step: int, drawn: tuple[torch.Tensor, ...] | None = None) -> torch.Tensor:
            assert drawn is not None
            with torch.autocast("cpu", enabled=False):
                expected = draw_toy(split, step)
            for given, wanted in zip(drawn, expected, strict=True):
                assert torch.equal(given, wanted), "rounded to half precision on its way"
            return super().forward(split, step, drawn)

    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)  # type: ignore[arg-type]
    train(Watching(), config(steps=2, precision=precision), tmp_path, fabric=fabric, name="t")


def draw_toy(split: str, step: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(step + (10_000 if split == "val" else 0))
    x = torch.randn(16, 3, generator=generator)
    return x, x @ TRUTH.T + 1


@pytest.mark.slow
def test_batches_drawn_ahead_by_others_change_nothing_in_a_run_that_is_killed_and_goes_on(tmp_path: Path) -> None:
    alone = go(Drawing(), config(), tmp_path / "alone")
    with pytest.raises(RuntimeError, match="killed"):
        go(Drawing(fail_at=6), config(), tmp_path / "ahead", workers=2)
    ahead = go(Drawing(), config(), tmp_path / "ahead", workers=2)
    assert_same_state(ahead.weights, alone.weights)
    assert rows(tmp_path / "ahead") == rows(tmp_path / "alone")


def die(split: str, step: int) -> tuple[torch.Tensor, ...]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@pytest.mark.slow
def test_a_drawing_process_that_dies_is_one_clear_line() -> None:
    words = r"a data-loading process must run .* fewer data\.workers"
    with pytest.raises(WorkerError, match=words), translate_worker_death():
        list(prefetch(die, range(3), workers=1))


def refuse(split: str, step: int) -> tuple[torch.Tensor, ...]:
    raise ConfigError("a rule", received="this", remedy="do that")


@pytest.mark.slow
def test_what_goes_wrong_while_drawing_is_told_as_it_is() -> None:
    with pytest.raises(ConfigError, match="a rule, got this"):
        list(prefetch(refuse, range(3), workers=1))


@pytest.mark.slow
def test_a_program_ends_although_an_error_keeps_the_processes_that_draw(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        """
import sys
from halebrain.training.prefetch import prefetch

def refuse(split, step):
    raise ValueError(f"{split} {step}")

if __name__ == "__main__":
    try:
        list(prefetch(refuse, range(9), workers=2))
    except ValueError as error:
        sys.exit(str(error))
"""
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (1, "train 0\n")


@pytest.mark.slow
def test_a_process_that_draws_loads_nothing_that_trains() -> None:
    modules = "[m for m in ('lightning_fabric', 'typer') if m in sys.modules]"
    code = f"import sys, halebrain.training.batch_sampling; print({modules})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_without_processes_batches_are_drawn_here_or_by_the_stage() -> None:
    drawn = [batch for batch in prefetch(draw_toy, range(3, 5), workers=0) if batch is not None]
    assert [torch.equal(x, draw_toy("train", 3 + n)[0]) for n, (x, _) in enumerate(drawn)] == [True, True]
    assert list(prefetch(None, range(2), workers=4)) == [None, None]
    assert list(prefetch(draw_toy, range(2, 2), workers=4)) == []
