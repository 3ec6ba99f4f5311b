"""The training loop, flat, on Lightning Fabric: devices, precision, EMA, clipping, log, checkpoint, exact resume.

A stage gives the loss of a batch of training or validation; nothing here knows what is learned. What a batch holds
depends on the seed and its number alone, so a run that was killed continues to the same weights as one that was not,
and several processes that share out the micro-batches of each step learn what one learns that takes them all.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim.swa_utils import AveragedModel

from halebrain.core.errors import ConfigError
from halebrain.core.progress import ProgressBar
from halebrain.models.compiling import compile_networks
from halebrain.training.loop_config import LoopConfig
from halebrain.training.loop_state import LOG, Log, Run, SignalWatch, TrainingResult
from halebrain.training.micro_batches import RunningStatistics, own_batches
from halebrain.training.prefetch import Draw, Drawn, prefetch, translate_worker_death
from halebrain.training.processes import gather, together

Weights = dict[str, torch.Tensor]
"""State of a network by name."""
OnValidated = Callable[[int, Weights], None]
_LEAST_SCALE = 2.0**-10
"""Scale of 16-bit gradients, 65536 at first, below which a step that overflows is one of an endless row of them."""


class _AsDrawn:
    """A batch that reaches the stage in full precision: Fabric rounds what it sees in the arguments of a network.

    Intensities in 8 bits of mantissa are coarser than the differences between tissue and lesion. A plain class, as
    Fabric looks into tuples and dataclasses.
    """

    def __init__(self, tensors: Drawn) -> None:
        self.tensors = tensors


def _unwrapped(_stage: nn.Module, arguments: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(one.tensors if isinstance(one, _AsDrawn) else one for one in arguments)


class Stage(nn.Module):
    """What the loop trains.

    A subclass's `forward` returns the loss of one batch; the network in `trained` learns, everything else in the stage
    is frozen.
    """

    trained: nn.Module
    draw: Draw | None = None
    """Draws what a batch needs before any network sees it; `None` if sampling is not separable."""

    def forward(self, split: str, step: int, drawn: Drawn | None = None) -> torch.Tensor:
        """Return the loss, a scalar, of batch `step` of `split` ("train" or "val").

        It is a micro-batch where a step has several. `drawn` is what it holds, if drawn already.
        """
        raise TypeError(f"{type(self).__name__} must define how its loss is computed")


def train(
    stage: Stage,
    config: LoopConfig,
    folder: Path,
    *,
    fabric: Fabric,
    name: str,
    identity: str = "",
    content: str = "",
    workers: int = 0,
    on_validated: OnValidated | None = None,
) -> TrainingResult:
    """Train `stage.trained`, continuing from the checkpoint in `folder` where there is one.

    Args:
        stage: What to train; it is set up on the fabric's device here.
        config: Settings of the optimisation.
        folder: Where the checkpoint and the log go.
        fabric: Launched; of several processes each learns from its share of the micro-batches.
        name: Name in the progress bar.
        identity: Hash of everything else that the run depends on (data, networks, seed); kept in the checkpoint.
        content: Hash of what the files of the scans hold, which `identity` knows by their names.
        workers: Processes that draw training batches ahead; 0 = this one draws each when its turn comes.
        on_validated: Called after each validation with the step and the averaged weights, which go on to change. A
            validation after the last checkpoint comes again when the run is resumed.

    Raises:
        ConfigError: The checkpoint belongs to a run with another configuration, or on other data; or the gradients
            became infinite or no numbers, and nothing is saved of them.
        WorkerError: A process that draws batches died.
    """
    with together(fabric):
        model, run = _set_up(stage, config, folder, fabric, identity, content)
    _check_same_step(run)
    log, message = Log(folder / LOG, first_step=run.step, writes=fabric.is_global_zero), ""
    own = own_batches(range(run.step, config.steps), config.micro_batches, fabric)
    batches = prefetch(stage.draw, own, workers=workers, pinned=fabric.device.type == "cuda")
    numbered = zip(own, batches, strict=True)
    with (
        ProgressBar(name, config.steps, completed=run.step) as bar,
        SignalWatch() as watch,
        translate_worker_death(),
        closing(batches),
    ):
        try:
            while run.step < config.steps:
                losses, norm = _take_step(model, run, numbered)
                # Reading a value synchronises the device; at every step this would leave it idle half of the time.
                if _is_due(run.step, config) or (watch.asked_to_stop and fabric.world_size == 1):
                    with together(fabric):
                        _check_finite(norm, fabric)
                    loss = _mean(gather([float(one) for one in losses], fabric))
                    message = f"loss {loss:.4f}"
                    _keep_books(stage, run, log, loss, norm, on_validated)
                    # A signal may reach only some of the processes, or each at another step.
                    if any(gather([float(watch.asked_to_stop)], fabric)):
                        raise KeyboardInterrupt
                bar.advance(message)
        except KeyboardInterrupt:
            if run.is_finite():
                run.save()
            raise
    return run.result()


def _set_up(
    stage: Stage, config: LoopConfig, folder: Path, fabric: Fabric, identity: str, content: str
) -> tuple[nn.Module, Run]:
    """Return the stage on the fabric's device, and where its run stands."""
    average = AveragedModel(stage.trained, use_buffers=True)
    average.to(fabric.device).requires_grad_(False)
    average.n_averaged = average.n_averaged.cpu()  # counting on the GPU would force a synchronisation
    parameters = [p for p in stage.trained.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    trained = stage.trained
    stage.register_forward_pre_hook(_unwrapped)
    if config.compile:  # after the average, which runs for a few batches of validation alone
        compile_networks(trained, fabric.device)
    model, optimizer = fabric.setup(stage, optimizer)
    run = Run(trained, average, optimizer, config, folder, fabric, identity, content)
    run.restore()
    return model, run


def _check_same_step(run: Run) -> None:
    steps = gather([float(run.step)], run.fabric)
    with together(run.fabric):
        if len(set(steps)) > 1:
            raise ConfigError(
                "all processes must find the same checkpoint",
                received=f"steps {', '.join(f'{step:g}' for step in steps)}",
                where=run.path,
                remedy="give an output folder that every node shares",
            )


def _take_step(
    model: nn.Module, run: Run, batches: Iterator[tuple[int, Drawn | None]]
) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    """Learn from the micro-batches of one step; return their losses and the gradient norm.

    All are still on the device without synchronisation. The losses are those of the micro-batches of this process.
    """
    config, fabric = run.config, run.fabric
    _set_lr(run.optimizer, config, run.step)
    count, losses = config.micro_batches // fabric.world_size, list[torch.Tensor]()
    statistics = RunningStatistics(run.trained, config.micro_batches, fabric)
    while len(losses) < count:
        number, drawn = next(batches)
        # Gradients add up here; those of all processes are averaged in the backward pass of the last micro-batch.
        with fabric.no_backward_sync(model, enabled=len(losses) + 1 < count):
            loss: torch.Tensor = model("train", number, None if drawn is None else _AsDrawn(drawn))
            fabric.backward(loss / count)
        losses.append(loss.detach())
        statistics.add()
    statistics.finish()
    most = math.inf if config.clip_norm is None else config.clip_norm  # the norm is needed anyway, to check it
    norm = fabric.clip_gradients(run.trained, run.optimizer, max_norm=most, error_if_nonfinite=False)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    _update(run.average, run.trained, config.ema_decay)
    run.step += 1
    return losses, norm


def _is_due(step: int, config: LoopConfig) -> bool:
    """Return whether anything is logged, validated or saved after `step` steps."""
    return step == config.steps or any(
        step % every == 0 for every in (config.log_every, config.validate_every, config.checkpoint_every)
    )


def _keep_books(
    stage: Stage, run: Run, log: Log, loss: float, norm: torch.Tensor | None, on_validated: OnValidated | None
) -> None:
    """Validate, log and save where it is time to."""
    config, step = run.config, run.step
    at_end, validated = step == config.steps, math.nan
    if step % config.validate_every == 0 or at_end:
        validated = _validate(stage, run)
        if on_validated is not None:
            on_validated(step, run.average.module.state_dict())
    if step % config.log_every == 0 or not math.isnan(validated):
        log.row(step, loss, validated, _lr(run.optimizer), _float(norm), run.seconds())
    if step % config.checkpoint_every == 0 or at_end:
        run.save()


@torch.no_grad()
def _update(average: AveragedModel, trained: nn.Module, decay: float) -> None:
    """Take a step of the moving average, whose decay grows from 0.1 to `decay`, so that short runs forget their start.

    In one operation for all tensors, where `AveragedModel.update_parameters` has several for each and waits for the
    device.
    """
    count = int(average.n_averaged)
    weight = 1 - min(decay, (1 + count) / (10 + count)) if count else 1.0
    pairs = list(zip(_tensors(average.module), _tensors(trained), strict=True))
    floating = [(old, new.detach()) for old, new in pairs if old.is_floating_point()]
    torch._foreach_lerp_([old for old, _ in floating], [new for _, new in floating], weight)
    for old, new in pairs:
        if not old.is_floating_point():  # counters of batch norm
            old.copy_(new)
    average.n_averaged.fill_(count + 1)


def _validate(stage: Stage, run: Run) -> float:
    """Return the mean loss of the averaged weights over the validation batches."""
    current, stage.trained = stage.trained, run.average.module
    stage.eval()
    losses, config = [], run.config
    for batch in own_batches(range(config.validation_batches), config.micro_batches, run.fabric):
        # What is drawn is drawn in full precision, here as in training.
        drawn = None if stage.draw is None else stage.draw("val", batch)
        with torch.no_grad(), run.fabric.autocast():
            losses.append(float(stage("val", batch, drawn)))
    stage.trained = current
    stage.train()
    loss = _mean(gather(losses, run.fabric))
    run.keep_if_better(loss)
    return loss


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _tensors(network: nn.Module) -> Iterator[torch.Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _check_finite(norm: torch.Tensor | None, fabric: Fabric) -> None:
    # With 16-bit gradients an occasional overflow is normal: the scaler skips that step, and halves its scale. What
    # counts is the precision that the device has: on a CPU, Fabric replaces 16-mixed by bf16-mixed, without a scaler.
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    if scaler is not None and scaler.get_scale() >= _LEAST_SCALE:
        return
    if norm is not None and not bool(torch.isfinite(norm)):
        raise ConfigError(
            "gradients must stay finite",
            received=f"a norm of {float(norm)}",
            remedy="use a lower loop.lr or a longer loop.warmup_steps, with --overwrite; or check the training scans",
        )


def _set_lr(optimizer: torch.optim.Optimizer, config: LoopConfig, step: int) -> None:
    factor = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.lr_schedule == "cosine":
        factor *= 0.01 + 0.99 * (1 + math.cos(math.pi * step / config.steps)) / 2
    for group in optimizer.param_groups:
        group["lr"] = config.lr * factor


def _lr(optimizer: torch.optim.Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


def _float(norm: torch.Tensor | None) -> float:
    return math.nan if norm is None else float(norm)
