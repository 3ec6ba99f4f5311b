"""Several segmenters as one network, averaged or each for its contrasts, and the names of their weights."""

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from halebrain.core.modality import networks_asked
from halebrain.models.segmentation import Modality, Segmenter, SegmenterConfig

_FORMER_MEMBER = re.compile(r"(|.*?\.)others\.(\d+)\.")


class EnsembleMember(SegmenterConfig):
    """Size and inputs of one network of several.

    Args:
        contrasts: The contrasts that it is used for, as BIDS suffixes; () = every contrast without its own network.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = SegmenterConfig.ADDED_FIELDS | {"contrasts"}

    contrasts: tuple[str, ...] = ()


class Ensemble(nn.Module):
    """Several segmenters, trained apart: `(image, reconstruction, modality) -> logits` of their mean probability.

    Source: Lakshminarayanan et al. 2017. Differs from paper: there one network gives the probability.
    """

    def __init__(self, configs: Sequence[EnsembleMember]) -> None:
        super().__init__()
        self.configs: tuple[EnsembleMember, ...] = tuple(configs)
        self.members = nn.ModuleList(Segmenter(config) for config in configs)

    @property
    def visible_neighbours(self) -> tuple[int, ...]:
        """The neighbouring slices that any of the networks sees, each once: the channels after each slice."""
        return tuple(dict.fromkeys(place for config in self.configs for place in config.neighbours))

    @property
    def needs_reconstruction(self) -> bool:
        """Whether anything that any of the networks sees depends on the reconstruction."""
        return any(config.needs_reconstruction for config in self.configs)

    @property
    def contrasts_each(self) -> tuple[tuple[str, ...], ...]:
        """The contrasts of each network; () where no network has its own."""
        each = tuple(config.contrasts for config in self.configs)
        return each if any(each) else ()

    def asked(self, modality: str | None) -> tuple[int, ...]:
        """Return the places of the networks that are used for a contrast, a BIDS suffix; `None` = not known."""
        return networks_asked([config.contrasts for config in self.configs], modality)

    def forward(
        self, image: torch.Tensor, reconstruction: torch.Tensor, modality: Modality | None = None
    ) -> torch.Tensor:
        """Return the logits `(b, 1, h, w)` of the mean probability of the networks used; as `Segmenter.forward`."""
        if modality is None or isinstance(modality, str):
            return self._logits_of(self.asked(modality), image, reconstruction)
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, name in enumerate(modality):
            groups.setdefault(self.asked(name), []).append(row)
        parts = [self._logits_of(used, image[rows], reconstruction[rows]) for used, rows in groups.items()]
        places = torch.tensor([row for rows in groups.values() for row in rows], device=image.device)
        return torch.cat(parts)[places.argsort()]

    def all_logits(
        self, image: torch.Tensor, reconstruction: torch.Tensor, modality: Modality | None = None
    ) -> list[torch.Tensor]:
        """Return the logits alone: an ensemble has none at coarser levels."""
        return [self(image, reconstruction, modality)]

    def _logits_of(self, used: Sequence[int], image: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
        visible, found = self.visible_neighbours, []
        for number in used:
            own = self.configs[number].neighbours
            seen = image if own == visible else image[:, [0, *(1 + visible.index(place) for place in own)]]
            found.append(self.members[number](seen, reconstruction))
        return found[0] if len(found) == 1 else _mean_logits(torch.stack(found))


AnySegmenter = Segmenter | Ensemble
"""One network, or several."""


def _mean_logits(logits: torch.Tensor) -> torch.Tensor:
    """Return the logits of the mean of the probabilities of several logits `(networks, …)`."""
    each = logits.float()
    yes, no = (torch.logsumexp(F.logsigmoid(sign * each), dim=0) for sign in (1, -1))
    return yes - no


def present_weight_names(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights of a model or a checkpoint under the names that they have in this version.

    Until version 0.2 the first network of several contained the others, and the heads at coarser levels were `aside`.
    """
    joined = next((found[1] for name in weights if (found := _FORMER_MEMBER.match(name))), None)
    result = {}
    for name, weight in weights.items():
        if joined is not None and name.startswith(joined):
            own = _FORMER_MEMBER.match(name)
            number, inside = (int(own[2]) + 1, name[own.end() :]) if own else (0, name[len(joined) :])
            name = f"{joined}members.{number}.{inside}"
        name = re.sub(r"(^|\.)aside\.", r"\1auxiliary_heads.", name)
        result[re.sub(r"^segmenter\.encoder\.", "segmenter.encoders.0.", name)] = weight  # version 0.1
    return result
