"""Settings of evaluations and benchmarks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from halebrain.core.errors import UsageError
from halebrain.core.messages import Notify, log_message
from halebrain.workflows.settings.option import (
    DEFAULT_FUSION,
    ConfigPath,
    Device,
    Exams,
    Fusion,
    GrowTo,
    MinLesion,
    Modalities,
    Option,
    Overrides,
    Pathologies,
    Seed,
)


@dataclass(frozen=True)
class EvaluateSettings:
    """What is evaluated: a model on a manifest, or the results of any method against references."""

    model: Annotated[
        Path | None,
        Option("Model to evaluate on a manifest; default: the bundled one.", known="models", is_argument=True),
    ] = None
    manifest: Annotated[Path | None, Option("Table of scans (TSV), with MODEL.")] = None
    predictions: Annotated[Path | None, Option("Folder of anomaly maps or masks of any method, instead of MODEL.")] = (
        None
    )
    references: Annotated[Path | None, Option("Folder of true lesions.")] = None
    brain_masks: Annotated[Path | None, Option("Folder of brain masks; without it every voxel counts.")] = None
    labels: Annotated[str | None, Option("Lesion labels, in both folders: all, or for example 1,4.")] = None
    split: Annotated[str, Option("train, val, test, or all.")] = "test"
    modalities: Modalities = ()
    pathologies: Pathologies = ()
    threshold: Annotated[str, Option("auto, a number, or the name of a stored threshold.")] = "auto"
    min_lesion_mm3: MinLesion = None
    grow_to: GrowTo = None
    grid: Annotated[Literal["native", "working"], Option("native, or the model's working grid (2 mm).")] = "native"
    protocol: Annotated[
        Literal["behrendt2024"] | None, Option("behrendt2024: the paper's own numbers, on its grid.")
    ] = None
    reconstruction: Annotated[bool, Option("Also evaluate the reconstruction, at each noise level.")] = False
    baselines: Annotated[bool, Option("More baselines without networks: an atlas of the healthy training scans.")] = (
        False
    )
    seed: Seed = 0
    device: Device = "auto"
    exams: Exams = False
    fusion: Fusion = DEFAULT_FUSION
    notify: Notify = log_message

    def __post_init__(self) -> None:
        """Refuse both of the two ways to evaluate, and neither."""
        if (self.model is None and self.manifest is None) == (self.predictions is None):
            raise UsageError(
                "evaluate takes either MODEL and --manifest, or --predictions and --references",
                received="both" if self.predictions is not None else "neither",
                remedy="give -o OUT and MODEL --manifest M, or -o OUT --predictions DIR --references DIR",
            )


@dataclass(frozen=True)
class BenchmarkSettings:
    """The methods that a benchmark compares, the scans of its folds, and where it runs."""

    config: ConfigPath = None
    folds: Annotated[
        Path | None, Option("Folder of halebrain folds: its tables take the place of the scans of the file.")
    ] = None
    only: Annotated[
        tuple[str, ...],
        Option("Only cells whose key matches, as fold*/seed0/*, and those that they need; repeatable; default: all."),
    ] = ()
    overrides: Overrides = ()
    device: Device = "auto"
    devices: Annotated[int, Option("Devices of this machine; each trains other cells.", minimum=1)] = 1
    notify: Notify = log_message
