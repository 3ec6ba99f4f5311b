"""Whose a model's weights are: licence, authors, how to cite them, and what they learned from, in words."""

from pydantic import Field

from halebrain.core.config import Config


class About(Config):
    """What someone who uses or passes on the weights must know; it travels inside the model.

    Args:
        licence: SPDX identifier of the licence of the weights ("CC-BY-4.0").
        citation: How to cite them, one line.
        authors: Who made them.
        data: What they learned from, in words: data sets, with their licences.
        figures: What it reached, one line each: on which scans, and the command that gives it.
        limits: What they are known to do badly, in words, by modality; results on such scans carry it as a flag.
    """

    licence: str = Field(min_length=1)
    citation: str = Field(min_length=1)
    authors: tuple[str, ...] = Field(min_length=1)
    data: str = Field(min_length=1)
    figures: tuple[str, ...] = ()
    limits: dict[str, str] = Field(default_factory=dict)
