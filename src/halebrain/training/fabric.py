"""The device and the precision that a training runs on."""

import logging
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment

from halebrain.training.loop_config import LoopConfig, Precision


def launch(loop: LoopConfig, device: torch.device) -> Fabric:
    """Return a launched Fabric on one device, in the precision of the loop."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the model card holds this information
    devices = [device.index or 0] if device.type == "cuda" else 1
    fabric = Fabric(
        accelerator=device.type,
        devices=devices,
        precision=resolve_precision(loop.precision, device),
        # Always one process: detecting SLURM or MPI may refuse an interactive job, or never return.
        plugins=[LightningEnvironment()],
    )
    fabric.launch()
    return fabric


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
