"""CutPaste: a patch of the slice pasted somewhere else in it (Li et al., CVPR 2021)."""

import torch
from pydantic import Field

from halebrain.data.anomalies.base import ANOMALIES, AnomalyGenerator, AnomalySettings, Params
from halebrain.data.anomalies.shapes import between, centres, column, drawn, rectangle, shifted


class CutPasteSettings(AnomalySettings):
    """Settings of CutPaste.

    Args:
        area: Range of the patch's area in pixels.
        aspect: Largest ratio of its sides.
        scar: Share of patches that are thin and turned ("scar" in the paper).
        jitter: Largest change of the patch's brightness and contrast.
    """

    area: tuple[float, float] = (60.0, 800.0)
    aspect: float = Field(default=3.0, ge=1)
    scar: float = Field(default=0.3, ge=0, le=1)
    jitter: float = Field(default=0.1, ge=0, le=1)


@ANOMALIES.register("cutpaste")
class CutPasteAnomaly(AnomalyGenerator):
    """Pastes a rectangle whose middle comes from the brain at another place in the brain.

    Differs from paper: what comes from outside the brain is not pasted, and pixels that do not change carry no label.
    """

    Settings = CutPasteSettings
    settings: CutPasteSettings

    def sample_params(self, count: int, *, generator: torch.Generator) -> list[Params]:
        """Draw where from, where to, sides, angle and jitter."""
        s, params = self.settings, []
        for u in torch.rand(count, 9, generator=generator).tolist():
            is_scar = u[1] < s.scar
            side = between(s.area, u[2]) ** 0.5
            aspect = s.aspect ** (2 * u[3] - 1)
            params.append(
                {
                    "present": u[0] < s.probability,
                    "size": [2 + 4 * u[2], 10 + 20 * u[3]] if is_scar else [side * aspect**0.5, side / aspect**0.5],
                    "angle": 3.1416 * u[4] if is_scar else 0.0,
                    "source": u[5],
                    "target": u[6],
                    "gain": 1 + s.jitter * (2 * u[7] - 1),
                    "shift": s.jitter * (2 * u[8] - 1),
                }
            )
        return params

    def _altered(self, image: torch.Tensor, brain_mask: torch.Tensor, params: list[Params]) -> torch.Tensor:
        source, target = (centres(brain_mask, drawn(params, key)) for key in ("source", "target"))
        moved = shifted(image, target - source)
        had_brain = shifted(brain_mask.float(), target - source) > 0
        gain, shift = (column(params, key, image) for key in ("gain", "shift"))
        size, angle = drawn(params, "size"), drawn(params, "angle")
        patch = rectangle(image.shape, target, size, angle) & had_brain
        altered = torch.where(patch, moved * gain + shift, image)
        return altered
