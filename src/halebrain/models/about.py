"""Licence, authors, citation and training data of a model's weights, in words."""

from pydantic import Field

from halebrain.core.config import Config


class About(Config):
    """What users and distributors of the weights must know; it is stored in the model.

    Args:
        licence: SPDX identifier of the licence of the weights ("CC-BY-4.0").
        citation: How to cite them, one line.
        authors: Who made them.
        data: Training data in words: data sets, with their licences.
        figures: Performance figures, one line each: on which scans, and the command that computes it.
        limits: Known limits by modality, in words; results on such scans carry them as a flag.
    """

    licence: str = Field(min_length=1)
    citation: str = Field(min_length=1)
    authors: tuple[str, ...] = Field(min_length=1)
    data: str = Field(min_length=1)
    figures: tuple[str, ...] = ()
    limits: dict[str, str] = Field(default_factory=dict)
