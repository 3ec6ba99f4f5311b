"""Compilation of networks by `torch.compile`, where a compiler is; elsewhere they run as they are, with a line why."""

from functools import cache

import torch
from torch import nn

from halebrain.core.messages import log_message
from halebrain.models.conditioning import SliceEncoder
from halebrain.models.segmentation import Segmenter
from halebrain.models.unet import DiffusionUNet


def compile_networks(root: nn.Module, device: torch.device) -> bool:
    """Compile the U-nets, encoders and segmenters in `root` for a device; return whether they are.

    Weights and their names stay. Each compiles when it first runs, which takes up to a minute, and again for another
    number of slices. Results change by rounding.
    """
    reason = _reason_against(device.type)
    if reason:
        log_message(f"networks run without torch.compile: {reason}")
        return False
    for network in root.modules():
        if isinstance(network, DiffusionUNet | SliceEncoder):
            network.compile()
        elif isinstance(network, Segmenter):  # training takes the logits of every depth, inference those of the last
            network.all_logits = torch.compile(network.all_logits)  # type: ignore[method-assign]
    return True


@cache
def _reason_against(kind: str) -> str:
    """Return why nothing can be compiled for a kind of device; empty where it can be."""
    try:
        torch.compile(_probe)(torch.ones(4, device=kind))
    except Exception as error:  # whatever the compiler, the driver or their versions say
        return (
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
        )
    return ""


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x * 2 + 1
