"""Settings of models that are made of others: described, joined, given a second look."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from halebrain.workflows.settings.option import Option, Overwrite


@dataclass(frozen=True)
class DescribeSettings:
    """Whose a model is, and how good."""

    licence: Annotated[str, Option("Licence of the weights, as an SPDX identifier (CC-BY-4.0).")]
    citation: Annotated[str, Option("Citation, one line.")]
    authors: Annotated[tuple[str, ...], Option("Author; repeatable.", ("--author",))]
    data: Annotated[str, Option("Training data: data sets, with their licences.")]
    figures: Annotated[
        tuple[str, ...], Option("Performance figure, with the scans it was measured on; repeatable.", ("--figure",))
    ] = ()
    limits: Annotated[
        tuple[str, ...], Option("MODALITY=WORDS: known limit, shown as a flag on such scans; repeatable.", ("--limit",))
    ] = ()


@dataclass(frozen=True)
class SecondLookOptions:
    """How a detector takes a second look."""

    filler: Annotated[
        Path,
        Option(
            "Model of the inpainter that fills what is doubted: a folder, zip or name "
            "(halebrain train reconstructor -c inpainting).",
            known="models",
        ),
    ]
    doubt: Annotated[
        float, Option("Probability of the segmenter from which a voxel is doubted.", minimum=0.001, maximum=0.999)
    ] = 0.1
    grow: Annotated[int, Option("Pixels by which the doubted region is grown.", minimum=0)] = 2
    half: Annotated[
        bool,
        Option(
            "Write 16-bit weights: half the size. A detector of 32 bits then has slightly other scores, no thresholds."
        ),
    ] = False
    overwrite: Overwrite = False


@dataclass(frozen=True)
class JoinSettings:
    """How the segmenters of several models become one."""

    by_contrast: Annotated[
        bool, Option("Use each for the contrasts of its training data; all of them for other contrasts.")
    ] = False
    rest: Annotated[
        Path | None,
        Option("One of the models, used only for contrasts that no other was trained on (with --by-contrast)."),
    ] = None
    overwrite: Overwrite = False
