"""Which device the networks run on."""

from typing import TYPE_CHECKING

from halebrain.core.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    import torch


def find_device(name: str) -> "torch.device":
    """Return the device called `name`; "auto" takes CUDA where it is there, else the CPU.

    MPS is taken on request only: it has no sparse matrices, on which the simplex noise rests.

    Raises:
        UsageError: The name is none.
        UnavailableError: The device is not there.
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
            remedy="--device auto takes the best that is there",
        ) from error
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, False):
        raise UnavailableError(f"the device '{name}' must be there", remedy="use auto or cpu")
    return device
