"""Find with noise, verify with a second look: what a first pass doubts is cut out and filled from clean surroundings.

Who doubts is either a detector of one slice at a time inside the reconstructor (any finder and a segmenter), or the
segmenter of the model itself, whichever networks, neighbours and contrasts it has. An inpainter gives the doubted
region back. Everywhere else the slice is given back to the bit, so the residual shows what was doubted and is not as a
healthy brain would continue. Related: AutoDDPM (Bercea et al. 2023), IterMask (Liang et al. 2024).
"""

import torch
from pydantic import Field

from halebrain.core.config import Config
from halebrain.models.reconstruction.base import (
    RECONSTRUCTORS,
    Corruption,
    Level,
    Reconstructor,
    ReconstructorSpec,
    build_reconstructor,
)
from halebrain.models.reconstruction.inpainting import Inpainter, InpainterSettings, grown
from halebrain.models.segmentation import Segmenter, SegmenterConfig


class SecondLookSettings(Config):
    """Settings of the second look.

    Args:
        finder: Reconstructor of the first pass.
        doubter: Segmenter of the first pass; one without neighbours, which sees one slice at a time. `None` = that of
            the model: it learns from pairs of the finder, and what it doubts is filled at the end.
        filler: The inpainter. It alone is trained.
        doubt: Probability of the first pass from which a pixel is doubted; low, as what is not doubted cannot be
            found in the residual.
        grow: Pixels by which the doubted region is grown.
    """

    finder: ReconstructorSpec = ReconstructorSpec(name="cddpm")
    doubter: SegmenterConfig | None = SegmenterConfig()
    filler: InpainterSettings = InpainterSettings()
    doubt: float = Field(default=0.05, gt=0, lt=1)
    grow: int = Field(default=2, ge=0)

    def model_post_init(self, _: object, /) -> None:
        """Check that the first pass sees one slice at a time."""
        if self.doubter is not None and self.doubter.neighbours:
            raise ValueError("doubter must be a network without neighbours")


@RECONSTRUCTORS.register("second_look")
class SecondLook(Reconstructor):
    r"""$\hat x = (1 - m) \odot x + m \odot f((1 - m) \odot x, m)$ where $m$ is what the first pass doubts.

    Loss: that of the inpainter; the first pass is frozen, its weights are those of a trained detector.
    """

    reference = (
        "Bercea CI, Neumayr M, Rueckert D, Schnabel JA. Mask, stitch, and re-sample: enhancing robustness and "
        "generalizability in anomaly detection through automatic diffusion models. ICML Workshop IMLH 2023."
    )
    Settings = SecondLookSettings
    needs_corruption = True

    def __init__(self, settings: SecondLookSettings) -> None:
        super().__init__()
        self.settings = settings
        self.finder = build_reconstructor(settings.finder.name, settings.finder.settings)
        self.doubter = None if settings.doubter is None else Segmenter(settings.doubter)
        self.filler = Inpainter(settings.filler)
        for network in (self.finder, self.doubter):
            if network is not None:
                network.requires_grad_(False)

    @property
    def levels(self) -> tuple[Level, ...]:
        """Those of the first pass."""
        return self.finder.levels

    def random_level(self, generator: torch.Generator) -> Level:
        """Draw a level of the first pass."""
        return self.finder.random_level(generator)

    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return the loss of the inpainter."""
        return self.filler.loss(image, generator=generator, corrupt=corrupt)

    def reconstruct(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return the slice with its doubted region filled, in [0, 1]; the rest to the bit.

        Without an own doubter it is the reconstruction of the finder, from which the model's segmenter begins.
        """
        first = self.finder.reconstruct(image, level=level, seeds=seeds)
        if self.doubter is None:
            return first
        probability = self.doubter(image, first * (image > 0)).float().sigmoid()
        return self._filled(image, probability)

    def second_pass(self, image: torch.Tensor, probability: torch.Tensor) -> torch.Tensor | None:
        """Return the slice with what the model's segmenter doubts filled; `None` where there is an own doubter."""
        return self._filled(image, probability) if self.doubter is None else None

    def fill(self, image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        """Return the slices with their holes filled by the inpainter, in [0, 1]; arguments as of `Inpainter.fill`."""
        return self.filler.fill(image, hole)

    def doubted(self, image: torch.Tensor, probability: torch.Tensor) -> torch.Tensor:
        """Return where a probability is a doubt, grown, bool; all `(b, 1, h, w)`."""
        return grown((probability >= self.settings.doubt) & (image > 0), self.settings.grow)

    def _filled(self, image: torch.Tensor, probability: torch.Tensor) -> torch.Tensor:
        doubted = self.doubted(image, probability)
        rows = doubted.flatten(1).any(dim=1)
        if not rows.any():
            return image
        filled = image.clone()  # slices without doubt need no filler
        filled[rows] = self.filler.fill(image[rows], doubted[rows]).to(image.dtype)
        return filled
