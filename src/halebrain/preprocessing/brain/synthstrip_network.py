"""The network of SynthStrip (Hoopes et al. 2022), laid out so that the weights its authors give out fit it.

A U-Net in three dimensions: two convolutions a level, halved six times, a last stretch at full resolution, and one
output, the signed distance to the surface of the brain in mm. Names of layers are those of the published file.
"""

import pickle
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from halebrain.core.errors import DataError, UnavailableError

FEATURES = (16, 32, 64, 64, 64, 64, 64)
"""Channels of each level, full resolution first."""
_CONVOLUTIONS = 2
_KEY = "model_state_dict"


class SynthStripNetwork(nn.Module):
    """Intensities in [0, 1] in, distance to the brain's surface in mm out, negative inside."""

    def __init__(self, features: tuple[int, ...] = FEATURES) -> None:
        super().__init__()
        *above, bottom = features
        self.encoder, self.decoder, self.remaining = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        width = 1
        for channels in above:
            self.encoder.append(_stage(width, channels))
            width = channels
        # A level of the decoder has the channels of the one below it: from the bottom to half resolution.
        for channels, skip in zip((bottom, *reversed(above[1:])), reversed(above), strict=True):
            self.decoder.append(_stage(width, channels))
            width = channels + skip
        self.remaining.extend(_stage(width, features[0]))
        self.remaining.append(_Convolution(features[0], 1, activated=False))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the distance, `(b, 1, i, j, k)`, of images of that shape whose sides the levels can halve."""
        skips: list[torch.Tensor] = []
        x = image
        for stage in self.encoder:
            x = _through(stage, x)
            skips.append(x)
            x = nn.functional.max_pool3d(x, 2)
        for stage in self.decoder:
            x = nn.functional.interpolate(_through(stage, x), scale_factor=2, mode="nearest")
            x = torch.cat([x, skips.pop()], dim=1)
        return _through(self.remaining, x)


class _Convolution(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, *, activated: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels_in, channels_out, 3, padding=1)
        self.activated = activated

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return nn.functional.leaky_relu(x, 0.2, inplace=True) if self.activated else x


def _stage(channels_in: int, channels_out: int) -> nn.ModuleList:
    widths = [channels_in] + [channels_out] * _CONVOLUTIONS
    return nn.ModuleList(_Convolution(a, b) for a, b in pairwise(widths))


def _through(layers: Any, x: torch.Tensor) -> torch.Tensor:
    for layer in layers:
        x = layer(x)
    return x


def load_network(path: Path, device: str) -> SynthStripNetwork:
    """Return the network with the weights of `path`, ready to run; the last one is kept in memory."""
    if not path.is_file():
        raise UnavailableError(
            "SynthStrip needs its weights",
            received="no such file",
            where=path,
            remedy="put synthstrip.1.pt of FreeSurfer there, or give its path in HALEBRAIN_SYNTHSTRIP_WEIGHTS",
        )
    return _load(path.absolute(), path.stat().st_mtime_ns, device, FEATURES)


@lru_cache(maxsize=1)
def _load(path: Path, _changed: int, device: str, features: tuple[int, ...]) -> SynthStripNetwork:
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _wrong(path, f"a file that cannot be opened ({type(error).__name__})") from error
    if not isinstance(content, dict) or not isinstance(content.get(_KEY), dict):
        raise _wrong(path, f"a file without {_KEY}")
    weights = content[_KEY]
    network = SynthStripNetwork(features)
    expected = network.state_dict()
    for name in [*expected, *weights]:
        if name not in weights:
            raise _wrong(path, f"a file without '{name}'")
        if name not in expected:
            raise _wrong(path, f"an unknown '{name}'")
        if not isinstance(weights[name], torch.Tensor) or weights[name].shape != expected[name].shape:
            shape = tuple(getattr(weights[name], "shape", ()))
            raise _wrong(path, f"{shape} for '{name}' instead of {tuple(expected[name].shape)}")
    network.load_state_dict(weights)
    return network.to(device).eval().requires_grad_(False)


def _wrong(path: Path, found: str) -> DataError:
    return DataError(
        "SynthStrip's weights must be those of the published network",
        received=found,
        where=path,
        remedy="use synthstrip.1.pt as FreeSurfer distributes it",
    )
