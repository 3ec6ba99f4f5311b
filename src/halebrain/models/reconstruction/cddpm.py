"""cDDPM: simplex noise, conditioned on an encoder's vector of the input (Behrendt et al., arXiv 2312.04215)."""

from halebrain.models.conditioning import Conditioning, EncoderConfig
from halebrain.models.reconstruction.base import RECONSTRUCTORS
from halebrain.models.reconstruction.diffusion import DiffusionReconstructor, DiffusionSettings


class CDDPMSettings(DiffusionSettings):
    """Diffusion settings with an encoder, ResNet-50 by default, whose vector joins the time embedding."""

    conditioning: Conditioning = "vector"
    encoder: EncoderConfig | None = EncoderConfig()


@RECONSTRUCTORS.register("cddpm")
class CDDPM(DiffusionReconstructor):
    """The paper's reconstructor: the vector encodes contrast and anatomy hidden by the noise."""

    reference = (
        "Behrendt F, Bhattacharya D, Mieling R, Maack L, Krüger J, Opfer R, Schlaefer A. Guided reconstruction "
        "with conditioned diffusion models for unsupervised anomaly detection in brain MRIs. arXiv:2312.04215, "
        "2023."
    )
    Settings = CDDPMSettings
