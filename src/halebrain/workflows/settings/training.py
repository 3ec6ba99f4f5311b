"""Settings of what learns from a data set: weights, thresholds, and the weight of the residual."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from halebrain.core.messages import Notify, log_message
from halebrain.workflows.settings.option import (
    DEFAULT_FUSION,
    PATHOLOGIES,
    ConfigPath,
    Device,
    Exams,
    Fusion,
    Modalities,
    ModelPath,
    Option,
    Overrides,
    Overwrite,
    Pathologies,
    Seed,
)


@dataclass(frozen=True)
class TrainSettings:
    """A training: its configuration, its scans, and where it runs."""

    config: ConfigPath = None
    manifest: Annotated[Path | None, Option("Table of scans; the same as data.manifest.")] = None
    overrides: Overrides = ()
    device: Device = "auto"
    overwrite: Overwrite = False
    devices: Annotated[int, Option("Devices on each node that share the micro-batches of a step.", minimum=1)] = 1
    nodes: Annotated[int, Option("Nodes, each with as many devices.", minimum=1)] = 1


@dataclass(frozen=True)
class AdaptSettings:
    """How a model is adapted."""

    model: ModelPath = None
    pathologies: Annotated[
        tuple[str, ...],
        Option(
            "Adapt to these diseases only; other annotated scans are scored before and after.",
            ("--pathology",),
            known=PATHOLOGIES,
        ),
    ] = ()
    modalities: Modalities = ()
    config: ConfigPath = None
    overrides: Overrides = ()
    seed: Annotated[int | None, Option("Random seed; the same as seed=.")] = None
    device: Device = "auto"
    overwrite: Overwrite = False
    notify: Notify = log_message


@dataclass(frozen=True)
class CalibrateSettings:
    """How thresholds are chosen and stored."""

    output: Annotated[
        Path | None,
        Option("New folder for the calibrated model; MODEL is not changed.", ("--output", "-o"), is_output=True),
    ] = None
    modalities: Modalities = ()
    pathologies: Pathologies = ()
    name: Annotated[str | None, Option("Name of the data set: its thresholds are stored separately, as dice@NAME.")] = (
        None
    )
    add: Annotated[bool, Option("Add the modalities of this manifest to the existing thresholds.")] = False
    default: Annotated[
        str | None, Option("Threshold that --threshold auto uses: dice if there are lesions, or ml:1, fpr:0.01 …")
    ] = None
    population_fraction: Annotated[
        float,
        Option(
            "Fraction of healthy people within the limit of ml: thresholds: 0.5 = the median, 0.9 = nine of ten.",
            minimum=0.5,
            maximum=0.99,
            former="--healthy-share",
        ),
    ] = 0.5
    healthy_map: Annotated[
        bool,
        Option(
            "Fit the healthy residual map too: mean and spread of scan − pseudo-healthy scan at each place, from the "
            "healthy scans, five people a contrast or more."
        ),
    ] = False
    residual: Annotated[
        str | None,
        Option(
            "Residual map of the model from now on: normalised, normalised_signed (with a healthy map), absolute …; "
            "default: as it is.",
            known=("normalised", "normalised_bright", "normalised_dark", "normalised_signed", "normalised_leaning"),
        ),
    ] = None
    evidence: Annotated[
        float | None,
        Option(
            "Weight of the normalised residual as evidence beside the segmenter from now on: each standard deviation "
            "of healthy scans adds so much to the log-odds of its probability; default: as it is.",
            minimum=0,
            maximum=1,
        ),
    ] = None
    patients: Annotated[
        Path | None, Option("Another table (TSV) whose annotated scans of the split val take part, too.")
    ] = None
    plain: Annotated[bool, Option("Thresholds alone: findings do not grow, and no true volume is estimated.")] = False
    no_growth: Annotated[bool, Option("Findings do not grow; their true volume is estimated all the same.")] = False
    seed: Seed = 0
    device: Device = "auto"
    exams: Exams = False
    fusion: Fusion = DEFAULT_FUSION
    notify: Notify = log_message


@dataclass(frozen=True)
class TuneSettings:
    """What is tuned, and where the model with the best weight goes."""

    model: Annotated[
        Path | None,
        Option("Model (a folder, zip or name) with a segmenter; default: the bundled one.", is_argument=True),
    ] = None
    modalities: Modalities = ()
    pathologies: Pathologies = ()
    store: Annotated[
        Literal["seen", "unseen"] | None, Option("Write a new model with the best weight for this group.")
    ] = None
    output_model: Annotated[Path | None, Option("Folder of that model; MODEL is not changed.")] = None
    seed: Seed = 0
    device: Device = "auto"
    notify: Notify = log_message
