"""A pretrained encoder as one safetensors file: weights, configuration, and training summary."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from halebrain.core.config import parse_config
from halebrain.core.errors import ConfigError, DataError, MissingInputError
from halebrain.core.files import atomic_path
from halebrain.models.conditioning import EncoderConfig, SliceEncoder

_FORMAT = "halebrain-encoder-1"
_ANEW = "make one with `halebrain train encoder`"
_NOT_KEPT = "project."
"""The last layer belongs to the reconstructor: its width does, and it is learned there."""


@dataclass(frozen=True)
class PretrainedEncoder:
    """What an encoder file holds; the weights are without the last layer, the hash is that of the file."""

    weights: dict[str, torch.Tensor]
    config: EncoderConfig
    training: dict[str, Any]
    sha256: str


def save_encoder(encoder: SliceEncoder, config: EncoderConfig, training: dict[str, Any], path: Path) -> None:
    """Write the encoder, whole or not at all."""
    weights = {k: v.detach().cpu().contiguous() for k, v in encoder.state_dict().items() if not _dropped(k)}
    about = {"format": _FORMAT, "config": config.model_dump_json(), "training": json.dumps(training)}
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(weights, temporary, metadata=about)


def load_encoder(path: Path) -> PretrainedEncoder:
    """Read an encoder file."""
    if not path.is_file():
        raise MissingInputError("a pretrained encoder must exist", where=path, remedy=_ANEW)
    try:
        with safe_open(path, framework="pt") as handle:
            about = handle.metadata() or {}
        weights = safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise DataError("an encoder must be a safetensors file", received=error, where=path, remedy=_ANEW) from error
    if about.get("format") != _FORMAT:
        raise DataError("an encoder file must come from `halebrain train encoder`", where=path, remedy=_ANEW)
    try:
        said, training = json.loads(about["config"]), json.loads(about["training"])
    except (KeyError, ValueError, RecursionError) as error:
        raise DataError(
            "an encoder file must state how it was made", received=error, where=path, remedy=_ANEW
        ) from error
    config = parse_config(EncoderConfig, said, where=path)
    return PretrainedEncoder(weights, config, training, hashlib.sha256(path.read_bytes()).hexdigest())


def start_from(encoder: SliceEncoder, config: EncoderConfig, pretrained: PretrainedEncoder, *, where: Path) -> None:
    """Give `encoder` the pretrained weights, its last layer excepted; encoders of other sizes are refused."""
    # What is not kept may differ.
    own, other = (one.model_copy(update={"features": None, "head": "linear"}) for one in (config, pretrained.config))
    if own != other:
        wrong = [k for k, v in own if v != getattr(other, k)]
        raise ConfigError(
            "a reconstructor's encoder must have the size of the pretrained one",
            received=", ".join(f"{k} {getattr(own, k)} against {getattr(other, k)}" for k in wrong),
            where=where,
            remedy="pretrain an encoder of that size, or set the reconstructor's to it",
        )
    expected = {k for k in encoder.state_dict() if not _dropped(k)}
    if expected != set(pretrained.weights):
        raise DataError("an encoder file must hold every weight", received="others", where=where, remedy=_ANEW)
    encoder.load_state_dict(pretrained.weights, strict=False)


def _dropped(name: str) -> bool:
    return name.startswith(_NOT_KEPT)
