"""A setting as the command line shows it, and the settings and words that several commands share."""

from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from halebrain.core.errors import UsageError
from halebrain.core.registry import suggestion

MODALITIES = ("T1w", "T2w", "FLAIR")
BRAINS = ("auto", "stripped", "synthstrip", "hdbet", "deepbet", "atlas")
EXTRACTORS = f"{', '.join(BRAINS[1:-1])} or {BRAINS[-1]}"
PATHOLOGIES = ("ms", "stroke", "tumour", "wmh", "cavity", "haemorrhage", "mass")
FUSIONS = ("root_odds", "weighted_odds", "log_odds", "mean")
DEFAULT_FUSION = "root_odds"
SOURCES = ("ixi", "brats", "atlas2", "mslub", "wmh", "mood", "bids", "folder", "table", "published")


@dataclass(frozen=True)
class Option:
    """A setting as the command line shows it.

    Args:
        help: Its description, one line.
        flags: How it is typed; empty = `--` and the name of the field.
        minimum: Smallest value.
        maximum: Largest value.
        known: Words that the shell offers: these, or names of models or of shipped configurations.
        is_argument: Whether it has a place instead of a flag.
        former: Its flag in earlier versions, which is understood with a warning.
        is_output: Whether it is a folder that the command writes into.
    """

    help: str
    flags: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    known: tuple[str, ...] | Literal["models", "configs"] = ()
    is_argument: bool = False
    former: str = ""
    is_output: bool = False


def check_value(name: str, hint: Any, value: object) -> None:
    """Refuse a value that the command line would not take: another word than those of a choice, or out of range.

    Args:
        name: Name of the setting.
        hint: Its annotation, with its `Option`.
        value: The value; `None` = not given.

    Raises:
        UsageError: The setting does not take the value.
    """
    kind, *described = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    option = next((one for one in described if isinstance(one, Option)), None)
    choice = next((one for one in (kind, *get_args(kind)) if get_origin(one) is Literal), None)
    if value is None or option is None:
        return
    if choice is not None and value not in (words := get_args(choice)):
        remedy = suggestion(str(value), list(words))
        raise UsageError(f"{name} takes {' or '.join(words)}", received=repr(value), remedy=remedy)
    low, high = option.minimum, option.maximum
    limits = [f"at {word} {limit:g}" for word, limit in (("least", low), ("most", high)) if limit is not None]
    inside = isinstance(value, Real) and (low is None or low <= float(value)) and (high is None or float(value) <= high)
    if limits and not inside:
        raise UsageError(
            f"{name} takes a number of {' and '.join(limits)}", received=repr(value), remedy="give another number"
        )


Output = Annotated[Path, Option("Output folder.", ("--output", "-o"), is_output=True)]
ManifestPath = Annotated[Path, Option("Table of scans (TSV).")]
ModelPath = Annotated[
    Path | None,
    Option(
        "Model: a folder, a zip, or a name (halebrain models list); default: the bundled one.",
        ("--model", "-m"),
        known="models",
    ),
]
ConfigPath = Annotated[
    Path | None, Option("YAML file, or the name of a shipped one.", ("--config", "-c"), known="configs")
]
Overrides = Annotated[tuple[str, ...], Option("key=value; dotted keys; repeatable.", ("--set",))]
Modalities = Annotated[tuple[str, ...], Option("Only these modalities.", ("--modality",), known=MODALITIES)]
Pathologies = Annotated[tuple[str, ...], Option("Only these diseases.", ("--pathology",), known=PATHOLOGIES)]
MinLesion = Annotated[float | None, Option("Smallest lesion kept, mm³; default: the model's setting.", minimum=0)]
GrowTo = Annotated[
    float | None, Option("Lower threshold to which findings of a threshold given as a number grow; default: no growth.")
]
Seed = Annotated[int, Option("Random seed.")]
Device = Annotated[str, Option("auto, cpu, cuda, cuda:N or mps.", known=("auto", "cpu", "cuda", "mps"))]
Overwrite = Annotated[bool, Option("Replace earlier results instead of resuming.")]
Exams = Annotated[bool, Option("All scans of a person at one time together, as in detect --exam.")]
Fusion = Annotated[str, Option(f"How the contrasts of an exam are fused: {', '.join(FUSIONS)}.", known=FUSIONS)]
Spacing = Annotated[float, Option("Voxel size in mm.", minimum=1.0, maximum=4.0)]
