"""A pretrained ResNet that the user brings as a file; frozen, and never with random weights.

Names of the weights are those of torchvision's state_dict, so that its files fit unchanged (He et al. 2016;
Zagoruyko & Komodakis 2016 for the wide one). Files: `.pth` (loaded without unpickling code) or `.safetensors`.
"""

import hashlib
import pickle
from pathlib import Path
from typing import Literal, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn
from torch.nn import functional as F

from halebrain.core.errors import ConfigError, DataError, MissingInputError

BackboneName = Literal["resnet18", "resnet50", "wide_resnet50_2"]


class _Size(NamedTuple):
    blocks: tuple[int, int, int, int]
    expansion: int
    inner: int
    """Width inside a bottleneck, relative to the plain one."""


_SIZES: dict[str, _Size] = {
    "resnet18": _Size((2, 2, 2, 2), 1, 1),
    "resnet50": _Size((3, 4, 6, 3), 4, 1),
    "wide_resnet50_2": _Size((3, 4, 6, 3), 4, 2),
}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours: what the published weights were learned on."""


class Backbone(nn.Module):
    """Maps slices `(b, 1, h, w)` in [0, 1] to the features of the first three stages; always frozen, in eval mode."""

    mean: torch.Tensor
    std: torch.Tensor
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential

    def __init__(self, name: BackboneName, *, width: int = 64) -> None:
        super().__init__()
        size = _SIZES[name]
        self.name = name
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.widths = tuple(width * 2**stage * size.expansion for stage in range(3))
        before = width
        for stage, count in enumerate(size.blocks[:3]):
            blocks = []
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(_Block(before, width * 2**stage, size, stride))
                before = self.widths[stage]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)
        self.loaded = False
        self.register_load_state_dict_post_hook(_note_loaded)  # type: ignore[no-untyped-call]
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in eval mode: the statistics of the norms belong to the weights."""
        return super().train(False)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the features after each of three stages, at 1/4, 1/8 and 1/16 of the size.

        Without weights an error.
        """
        if not self.loaded:
            raise RuntimeError("a backbone must be loaded before it is used")
        x = (image.expand(-1, 3, -1, -1) - self.mean) / self.std
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        found = []
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
            found.append(x)
        return found


def _note_loaded(backbone: Backbone, _: object) -> None:
    backbone.loaded = True


class _Block(nn.Module):
    """Two 3×3 convolutions, or 1×1, 3×3 and 1×1, with a skip."""

    def __init__(self, before: int, width: int, size: _Size, stride: int) -> None:
        super().__init__()
        after = width * size.expansion
        self.deep = size.expansion > 1
        inner = width * size.inner
        if self.deep:
            self.conv1, self.bn1 = nn.Conv2d(before, inner, 1, bias=False), nn.BatchNorm2d(inner)
            self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
            self.conv3, self.bn3 = nn.Conv2d(inner, after, 1, bias=False), nn.BatchNorm2d(after)
        else:
            self.conv1, self.bn1 = nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = nn.Conv2d(width, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.deep:
            hidden = self.bn3(self.conv3(F.relu(hidden)))
        return F.relu(hidden + (x if self.downsample is None else self.downsample(x)))


def load_backbone(backbone: Backbone, path: Path | None) -> str:
    """Give the backbone the weights of a file, and return the file's hash.

    The file's fourth stage and classifier are not needed and left aside; everything else must fit.
    """
    if path is None:
        raise ConfigError(
            "a method that compares features needs a pretrained backbone",
            received="no weights",
            remedy=f"give the file of torchvision's {backbone.name} as `weights`; random weights are never used",
        )
    if not path.is_file():
        raise MissingInputError("backbone weights must exist", where=path, remedy="check the path given")
    weights = {k: v for k, v in _read(path).items() if not k.startswith(("fc.", "layer4."))}
    own = backbone.state_dict()
    # Files of old versions do not count batches.
    needed = {k for k in own if not k.endswith("num_batches_tracked")}
    wrong = sorted(needed - set(weights)) or sorted(set(weights) - set(own))
    wrong = wrong or sorted(k for k in needed if weights[k].shape != own[k].shape)
    if wrong:
        raise DataError(
            f"backbone weights must be those of {backbone.name}",
            received=f"{len(wrong)} do not fit, first {wrong[0]}",
            where=path,
            remedy="give the weights of that network",
        )
    backbone.load_state_dict({**own, **weights})
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        raw = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            "backbone weights must be a .pth or .safetensors file",
            received=reason,
            where=path,
            remedy="give torchvision's complete file",
        ) from error
    if not isinstance(raw, dict) or not all(isinstance(v, torch.Tensor) for v in raw.values()):
        raise DataError(
            "backbone weights must be a state_dict",
            received=type(raw).__name__,
            where=path,
            remedy="save network.state_dict(), not the network",
        )
    return raw
