"""The device and the precision that a training runs on."""

import logging

import torch
from lightning.fabric import Fabric

from halebrain.training.loop import LoopConfig


def launch(loop: LoopConfig, device: torch.device) -> Fabric:
    """Return a launched Fabric on one device, in the precision of the loop."""
    for name in ("lightning.fabric", "lightning.pytorch"):  # what they would tell stands in the card
        logging.getLogger(name).setLevel(logging.WARNING)
    devices = [device.index or 0] if device.type == "cuda" else 1
    fabric = Fabric(accelerator=device.type, devices=devices, precision=loop.precision)
    fabric.launch()
    return fabric
