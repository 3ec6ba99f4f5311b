"""AnoDDPM: simplex noise, no condition (Wyatt et al., CVPRW 2022)."""

from halebrain.models.reconstruction.base import RECONSTRUCTORS
from halebrain.models.reconstruction.diffusion import DiffusionReconstructor


@RECONSTRUCTORS.register("anoddpm")
class AnoDDPM(DiffusionReconstructor):
    """The diffusion reconstructor with noise of many scales, which covers large lesions too."""

    reference = (
        "Wyatt J, Leach A, Schmon SM, Willcocks CG. AnoDDPM: anomaly detection with denoising diffusion "
        "probabilistic models using simplex noise. CVPRW 2022:650–656."
    )
