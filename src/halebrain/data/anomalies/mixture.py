"""A mixture: each slice gets an anomaly of one kind, drawn by weight."""

import torch
from pydantic import Field

from halebrain.core.config import Config
from halebrain.data.anomalies.base import ANOMALIES, AnomalyGenerator, AnomalySpec, Params, build_anomaly
from halebrain.io.checksum import json_sha256


class MixtureSettings(Config):
    """Settings of a mixture.

    Args:
        of: The kinds, each with its own settings.
        weights: How often each is drawn, relative to the others; equally often by default.
    """

    of: tuple[AnomalySpec, ...] = (
        AnomalySpec(name="dag"),
        AnomalySpec(name="perlin"),
        AnomalySpec(name="deformation"),
        AnomalySpec(name="cohort"),
    )
    weights: tuple[float, ...] | None = Field(default=None)

    def model_post_init(self, _: object, /) -> None:
        """Check that there is a weight for each kind."""
        if not self.of:
            raise ValueError("a mixture needs at least one kind")
        weights = self.weights or (1.0,) * len(self.of)
        if len(weights) != len(self.of) or min(weights) < 0 or sum(weights) == 0:
            raise ValueError("weights must be one for each kind, none below 0 and not all 0")


@ANOMALIES.register("mixture")
class MixtureAnomaly(AnomalyGenerator):
    """Delegates: the parameters of a slice say which kind it has, and hold that kind's own."""

    Settings = MixtureSettings

    def __init__(self, settings: MixtureSettings) -> None:
        super().__init__(settings)
        self.kinds = [build_anomaly(spec) for spec in settings.of]
        self.displaces_tissue = any(kind.displaces_tissue for kind in self.kinds)
        self.weights = torch.tensor(settings.weights or (1.0,) * len(self.kinds))

    def files_sha256(self) -> str:
        """Return a hash of the files of all kinds; "" where there are none."""
        hashes = [kind.files_sha256() for kind in self.kinds]
        return json_sha256(hashes) if any(hashes) else ""

    def sample_params(self, count: int, *, generator: torch.Generator) -> list[Params]:
        """Draw the kind of each slice, then its parameters."""
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator).tolist()
        # Every kind draws for every slice, so that one slice's kind does not move the others' draws.
        drawn = [kind.sample_params(count, generator=generator) for kind in self.kinds]
        return [{"kind": kind, "params": drawn[kind][n]} for n, kind in enumerate(chosen)]

    def apply(
        self, image: torch.Tensor, brain_mask: torch.Tensor, params: list[Params]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return slices, each with the anomaly of its kind, and their masks."""
        altered, mask = image.clone(), torch.zeros_like(brain_mask)
        for number, kind in enumerate(self.kinds):
            have = [n for n, p in enumerate(params) if p["kind"] == number]
            if have:
                altered[have], mask[have] = kind.apply(
                    image[have], brain_mask[have], [params[n]["params"] for n in have]
                )
        return altered, mask
