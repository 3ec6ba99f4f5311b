"""How a training starts on its devices: precision, one process for each device, torchrun and SLURM."""

import atexit
import inspect
import logging
import os
import sys
import threading
from collections.abc import Sequence
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning_fabric.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from halebrain.core.commands import Process, end_commands, start_command
from halebrain.core.errors import ConfigError, UnavailableError, UsageError
from halebrain.core.progress import SETTINGS
from halebrain.training.loop_config import LoopConfig, Precision

_DDP_OPTIONS = inspect.signature(DistributedDataParallel).parameters
_GRACE_S = 30.0
"""How long this process may wait for one that has died before it is ended."""
_LOST_PROCESS = 70


def launch(
    loop: LoopConfig, device: torch.device, *, devices: int = 1, nodes: int = 1, others: Sequence[str] = ()
) -> Fabric:
    """Return a launched Fabric in the precision of the loop, on `devices` devices of each of `nodes` nodes.

    Under torchrun and `srun` with several tasks the processes are there already. Otherwise this one starts those of its
    node with the command `others`; on several nodes it reads MASTER_ADDR, MASTER_PORT and NODE_RANK.

    Args:
        loop: Its micro-batches are shared out evenly.
        device: The device of a single process, else the kind of all of them.
        devices: Devices on each node; each has a process.
        nodes: Nodes.
        others: Arguments of `halebrain` that start this training in another process.

    Raises:
        ConfigError: The micro-batches of a step cannot be shared out evenly.
        UnavailableError: There are fewer devices.
        UsageError: torchrun or SLURM started another number of processes, or a node has no address of the first.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the model card holds this information
    precision, size = resolve_precision(loop.precision, device), devices * nodes
    if size == 1:
        # Always one process: detecting SLURM or MPI may refuse an interactive job, or never return.
        place, alone = ([device.index or 0] if device.type == "cuda" else 1), LightningEnvironment()
        fabric = Fabric(accelerator=device.type, devices=place, precision=precision, plugins=[alone])
        fabric.launch()
        return fabric
    _check_devices(loop, device, devices, size)
    environment = _environment(devices, nodes)
    if isinstance(environment, _OwnProcesses):
        _share_threads(devices)
        environment.start(others, devices)
    # Batch-norm statistics are averaged in the loop, where one device that takes several micro-batches averages too.
    ours = {"forward_sync_buffers" if "forward_sync_buffers" in _DDP_OPTIONS else "broadcast_buffers": False}
    strategy = DDPStrategy(cluster_environment=environment, **ours)
    fabric = Fabric(accelerator=device.type, devices=devices, num_nodes=nodes, precision=precision, strategy=strategy)
    try:
        fabric.launch()
    except ValueError as error:  # what SLURM was asked for per node, and how many nodes
        raise UsageError(
            "--devices and --nodes must be what SLURM was asked for",
            received=f"--devices {devices} --nodes {nodes}: {error}",
            remedy="give sbatch the same --ntasks-per-node and --nodes",
        ) from error
    SETTINGS.enabled = SETTINGS.enabled and fabric.is_global_zero
    return fabric


def check_one_process() -> None:
    """Stop where torchrun or SLURM started several processes, and each would train the same model alone.

    Raises:
        UsageError: It did.
    """
    started = _started_by_others()
    if started is not None and started[1] > 1:
        program, count = started
        raise UsageError(
            f"processes of {program} must be those of --devices and --nodes",
            received=f"{count} processes, and one device",
            remedy="add --devices (of each node) and --nodes",
        )


def _check_devices(loop: LoopConfig, device: torch.device, devices: int, size: int) -> None:
    if str(device) not in ("cpu", "cuda"):  # another kind, or one device of several
        raise UsageError(
            "several devices must be of the kind cpu or cuda",
            received=str(device),
            remedy="use --device cuda; CUDA_VISIBLE_DEVICES chooses among GPUs",
        )
    if device.type == "cuda" and torch.cuda.device_count() < devices:
        raise UnavailableError(
            "each process needs a GPU",
            received=f"--devices {devices} and {torch.cuda.device_count()} GPUs",
            remedy="use fewer --devices; under SLURM ask for GPUs with --gpus-per-node, not --gpus-per-task",
        )
    if loop.micro_batches % size:
        fits = next((n for n in range(size, loop.batch_size + 1, size) if loop.batch_size % n == 0), None)
        raise ConfigError(
            "the micro-batches of a step must be shared out evenly",
            received=f"loop.micro_batches={loop.micro_batches} for {size} devices",
            remedy=f"start with --set loop.micro_batches={fits}, which gives the same result on fewer devices too"
            if fits
            else f"choose a number of devices that divides loop.batch_size={loop.batch_size}",
        )


def _started_by_others() -> tuple[str, int] | None:
    """Return the program that started this process and others, and their number; `None` where none did."""
    if TorchElasticEnvironment.detect():
        return "torchrun", int(os.environ["WORLD_SIZE"])
    # Those of the step: a script of sbatch and an interactive shell are one task of a larger job.
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    return ("srun", tasks) if tasks > 1 else None


def _environment(devices: int, nodes: int) -> ClusterEnvironment:
    started = _started_by_others()
    if started is None:
        return _OwnProcesses(nodes)
    program, count = started
    if count != devices * nodes:
        raise UsageError(
            f"processes of {program} must be those of --devices and --nodes",
            received=f"{count} processes for --devices {devices} --nodes {nodes}",
            remedy="start as many: torchrun --nproc-per-node and --nnodes, srun --ntasks-per-node and --nodes",
        )
    if program == "torchrun":
        return TorchElasticEnvironment()
    os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(devices))
    return SLURMEnvironment(auto_requeue=False)


def _share_threads(devices: int) -> None:
    """Give each process of this node its share of the threads that this one may use."""
    if "LOCAL_RANK" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(max(1, torch.get_num_threads() // devices))
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


class _OwnProcesses(LightningEnvironment):  # type: ignore[misc]
    """The processes of a node, which the first of them starts; each knows its number by LOCAL_RANK."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in os.environ]
        if nodes > 1 and missing:
            raise UsageError(
                "a training on several nodes must know its first one",
                received=f"no {', '.join(missing)}",
                remedy="start it by srun or torchrun, or set MASTER_ADDR, MASTER_PORT and NODE_RANK on each node",
            )

    @property
    def creates_processes_externally(self) -> bool:
        """True: Fabric would start them by the arguments of this program, which may not be the command line."""
        return True

    def start(self, arguments: Sequence[str], count: int) -> None:
        """Start the other processes of this node; they end with this one, and this one with any of them."""
        if "LOCAL_RANK" in os.environ:
            return
        first = {"MASTER_ADDR": self.main_address, "MASTER_PORT": str(self.main_port)}
        running = [
            start_command(arguments, environment=first | {"LOCAL_RANK": str(rank)}, prints=False)
            for rank in range(1, count)
        ]
        atexit.register(end_commands, running, wait_s=5)
        threading.Thread(target=_watch, args=(running,), daemon=True, name="watch-processes").start()


def _watch(running: Sequence[Process]) -> None:
    """End this process a while after another died: it may wait for that one in the driver of its device, forever."""
    waiting = threading.Event()
    while all(process.poll() in (None, 0) for process in running):
        waiting.wait(1.0)
    waiting.wait(_GRACE_S)
    sys.stderr.write("halebrain: a process of this training died; run the same command again, it resumes\n")
    for process in running:
        process.kill()
    os._exit(_LOST_PROCESS)


def resolve_precision(precision: Precision, device: torch.device) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    """Return the precision that "auto" stands for on a device; others unchanged.

    Emulated bf16, as on most laptops, takes ten times as long as single precision.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if device.type == "cpu" and _cpu_has_bf16() else "32-true"


def _cpu_has_bf16() -> bool:
    # torch 2.8 does not report it; single precision then costs a factor of two at most.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(there is True for name, there in capabilities.items() if name.endswith("bf16"))
