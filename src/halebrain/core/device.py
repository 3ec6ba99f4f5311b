"""Selection of the device."""

from typing import TYPE_CHECKING

from halebrain.core.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    import torch


def find_device(name: str) -> "torch.device":
    """Return the device called `name`; "auto" uses CUDA if it is available, else the CPU.

    MPS is used on request only: it lacks sparse matrices, which the simplex noise needs.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            "a device is auto, cpu, cuda, cuda:N or mps",
            received=repr(name),
            remedy="--device auto uses the best available device",
        ) from error
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, False):
        raise UnavailableError(f"the device '{name}' must be available", remedy="use auto or cpu")
    return device
