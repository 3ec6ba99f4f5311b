"""Settings of every workflow: what a user may choose, each with its description, range and command-line option.

The command line makes its options from these classes, and Python fills them directly. The module loads no heavy
library, so that `halebrain --help` stays fast.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from halebrain.core.errors import UsageError
from halebrain.core.messages import Notify, log_message
from halebrain.core.parallel import ExecutorName, Schedule

Item = TypeVar("Item")

MODALITIES = ("T1w", "T2w", "FLAIR")
BRAINS = ("auto", "stripped", "synthstrip", "hdbet", "deepbet", "atlas")
EXTRACTORS = f"{', '.join(BRAINS[1:-1])} or {BRAINS[-1]}"
PATHOLOGIES = ("ms", "stroke", "tumour", "wmh", "cavity", "haemorrhage", "mass")
FUSIONS = ("weighted_odds", "log_odds", "mean")
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
    """

    help: str
    flags: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    known: tuple[str, ...] | Literal["models", "configs"] = ()
    is_argument: bool = False
    former: str = ""


Output = Annotated[Path, Option("Output folder.", ("--output", "-o"))]
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


@dataclass(frozen=True)
class SchedulerSettings:
    """Where the scans of a command are processed; the results are the same."""

    workers: Annotated[
        int | None,
        Option("Number of scans in parallel, one process each; default: one after the other.", minimum=0),
    ] = None
    executor: Annotated[
        ExecutorName,
        Option("processes of this machine, dask (workers of a running cluster), or submitit (SLURM jobs)."),
    ] = "processes"
    dask_address: Annotated[str | None, Option("Address of the Dask scheduler: tcp://HOST:8786.")] = None
    dask_scheduler_file: Annotated[
        Path | None, Option("File that the Dask scheduler wrote (--scheduler-file), instead of its address.")
    ] = None
    slurm: Annotated[
        tuple[str, ...],
        Option("key=value of sbatch for --executor submitit (partition=long, time=08:00:00); repeatable."),
    ] = ()

    def __post_init__(self) -> None:
        """Refuse options of another executor than the chosen one."""
        places = [name for name in ("dask_address", "dask_scheduler_file") if getattr(self, name) is not None]
        if self.executor == "dask" and len(places) != 1:
            raise UsageError(
                "--executor dask needs --dask-address or --dask-scheduler-file",
                received="both" if places else "neither",
                remedy="start a cluster with dask scheduler and dask worker, and give its address",
            )
        if self.executor == "submitit" and not self.workers:
            raise UsageError(
                "--executor submitit needs --workers",
                received=self.workers or 0,
                remedy="say how many jobs run at once",
            )
        if places and self.executor != "dask":
            flag = f"--{places[0].replace('_', '-')}"
            raise UsageError(
                f"{flag} needs --executor dask", received=self.executor, remedy="add it, or remove the flag"
            )
        if self.slurm and self.executor != "submitit":
            raise UsageError(
                "--slurm needs --executor submitit", received=self.executor, remedy="add it, or remove the flag"
            )

    def schedule(self, output: Path, *, threads: int | None = None, workers: int = 0) -> Schedule:
        """Return where scans are processed; `workers` are those of the command if the user gives none."""
        return Schedule(
            workers=workers if self.workers is None and self.executor == "processes" else self.workers or 0,
            threads=threads,
            executor=self.executor,
            dask_address=self.dask_address,
            dask_scheduler_file=self.dask_scheduler_file,
            slurm=self.slurm,
            output=output,
        )


@dataclass(frozen=True)
class PartSettings:
    """Which part of the scans a command processes, where an array of jobs shares them."""

    part_id: Annotated[int, Option("Index of this part, from 0.", minimum=0)] = 0
    num_parts: Annotated[int, Option("Number of parts that the scans are divided into.", minimum=1)] = 1

    def __post_init__(self) -> None:
        """Refuse a part that there is not."""
        if self.part_id >= self.num_parts:
            raise UsageError(
                "--part-id must be from 0 to --num-parts − 1",
                received=f"{self.part_id} of {self.num_parts}",
                remedy="for example --num-parts 4 --part-id 0, 1, 2 and 3",
            )

    @property
    def suffix(self) -> str:
        """What is added to the name of a list of failures."""
        return "" if self.num_parts == 1 else f"-{self.part_id}of{self.num_parts}"

    def own(self, items: Sequence[Item]) -> list[Item]:
        """Return the items of this part: every `num_parts`-th one."""
        return list(items[self.part_id :: self.num_parts])


WHOLE = PartSettings()
"""All scans, in one part."""


@dataclass(frozen=True)
class DetectSettings:
    """How scans are processed."""

    model: ModelPath = None
    brain: Annotated[
        str | None,
        Option(f"Brain extraction: auto (the best one installed; stripped scans stay), {EXTRACTORS}.", known=BRAINS),
    ] = "auto"
    threshold: Annotated[str, Option("auto, a number, or the name of a stored threshold (ml:1, fpr:0.01).")] = "auto"
    modality: Annotated[
        str,
        Option(
            "Contrast: auto (from manifest or file name, else inferred from the image), T1w, T2w, FLAIR or T1ce.",
            known=("auto", *MODALITIES, "T1ce"),
        ),
    ] = "auto"
    min_lesion_mm3: MinLesion = None
    grow_to: GrowTo = None
    seed: Seed = 0
    draws: Annotated[int, Option("Noise samples per level.", minimum=1)] = 1
    batch_size: Annotated[
        int | None,
        Option("Slices per batch; default: 16, on a GPU all. Changes no score by more than 0.00001.", minimum=1),
    ] = None
    device: Device = "auto"
    dicom_seg: Annotated[bool, Option("Also write the mask of DICOM scans as DICOM-SEG (needs the extra dicom).")] = (
        False
    )
    fill: Annotated[
        bool, Option("Write the lesion-filled scan alone: what is found is healed, all else is the scan itself.")
    ] = False
    also_fill: Annotated[bool, Option("Write the lesion-filled scan beside the other files.")] = False
    fill_margin_mm: Annotated[
        float, Option("How far the mask is grown before it is filled, mm.", minimum=0.0, maximum=20.0)
    ] = 2.0
    precision: Annotated[
        Literal["fp32", "bf16"],
        Option("Of the networks; bf16 is faster on devices that compute in it, scores change slightly."),
    ] = "fp32"
    compiled: Annotated[
        bool,
        Option("Compile the networks by torch.compile, a minute at the first scan; for many scans.", ("--compile",)),
    ] = False
    overwrite: Overwrite = False
    notify: Notify = log_message

    def __post_init__(self) -> None:
        """Refuse options that exclude each other."""
        if self.fill and (self.also_fill or self.dicom_seg):
            other = "--also-fill" if self.also_fill else "--dicom-seg"
            raise UsageError(
                f"--fill and {other} exclude each other", received="both", remedy="--also-fill writes all files"
            )

    @property
    def fills(self) -> bool:
        """Whether the lesion-filled scan is made."""
        return self.fill or self.also_fill


@dataclass(frozen=True)
class ExamSettings:
    """Whether the scans of a person at one time give one answer, and how."""

    exam: Annotated[
        bool, Option("One answer for all scans of a person at one time (T1, T2, FLAIR …), instead of one for each.")
    ] = False
    fusion: Fusion = "weighted_odds"


@dataclass(frozen=True)
class BidsSettings:
    """Which scans of a BIDS data set are processed."""

    participant_label: Annotated[
        tuple[str, ...],
        Option("Only these participants, with or without sub-.", ("--participant-label", "--participant_label")),
    ] = ()
    session_label: Annotated[
        tuple[str, ...], Option("Only these sessions, with or without ses-.", ("--session-label", "--session_label"))
    ] = ()
    bids_filter_file: Annotated[Path | None, Option('JSON of BIDS filters: {"t1w": {"run": 1}}.')] = None
    modality: Annotated[
        tuple[str, ...],
        Option(
            "T1w, T2w, FLAIR, T1ce, inplaneT2; default: the contrasts of the model's training data.",
            known=(*MODALITIES, "T1ce", "inplaneT2"),
        ),
    ] = ()
    skip_bids_validation: Annotated[bool, Option("Do not run the BIDS validator.")] = False
    work_dir: Annotated[
        Path | None, Option("Folder for temporary files, which are removed at the end.", ("--work-dir", "-w"))
    ] = None
    stop_on_first_crash: Annotated[bool, Option("Stop at the first exam or scan that fails.")] = False
    each_scan: Annotated[
        bool, Option("One answer for each scan; default: one for all scans of a participant and session.")
    ] = False
    fusion: Fusion = "weighted_odds"


@dataclass(frozen=True)
class PrepareSettings:
    """How raw scans become a data set."""

    kind: Annotated[
        str | None,
        Option(f"Layout: {', '.join(SOURCES)}.", ("--source",), known=SOURCES),
    ] = None
    source_settings: Annotated[tuple[str, ...], Option("key=value for the layout; repeatable.", ("--source-set",))] = ()
    config: Annotated[
        Path | None,
        Option(
            "YAML file of preprocessing settings, or the name of a training configuration: paper, demo, general.",
            ("--config", "-c"),
            known="configs",
        ),
    ] = None
    overrides: Annotated[tuple[str, ...], Option("key=value of the preprocessing; repeatable.", ("--set",))] = ()
    template: Annotated[
        Path | None, Option("Your own atlas, as SRI24: a skull-stripped T1. Default: MNI152NLin2009aSym.")
    ] = None
    template_mask: Annotated[Path | None, Option("Brain mask of an atlas that has its skull.")] = None
    model: Annotated[Path | None, Option("Preprocess as this model expects it.", ("--model", "-m"), known="models")] = (
        None
    )
    brain: Annotated[str | None, Option("Brain extraction: auto, stripped, atlas, …")] = None
    modality: Annotated[
        str | None,
        Option(
            "Only scans of this contrast; also the contrast of scans whose names do not state it.", known=MODALITIES
        ),
    ] = None
    pathology: Annotated[str | None, Option("Pathology of scans without one in the input: healthy, or a disease.")] = (
        None
    )
    split: Annotated[str | None, Option("Fractions of subjects in train,val,test: 0.7,0.1,0.2.")] = None
    seed: Seed = 0
    threads: Annotated[int, Option("CPU threads per process.", minimum=1)] = 1
    overwrite: Overwrite = False
    notify: Notify = log_message


@dataclass(frozen=True)
class FoldSettings:
    """Which subjects of several data sets are learned from, validated and tested in each fold of a benchmark."""

    manifests: Annotated[
        tuple[Path, ...],
        Option("Table of scans (TSV) of a data set; repeatable: all of them together.", ("--manifest",)),
    ]
    folds: Annotated[int, Option("Number of folds.", minimum=1)] = 5
    val: Annotated[int, Option("Healthy validation subjects of each fold, others in each.", minimum=1)] = 44
    test: Annotated[int, Option("Healthy test subjects, the same in each fold.", minimum=1)] = 160
    weak: Annotated[
        tuple[str, ...],
        Option("DISEASE=TRAIN:VAL, annotated subjects to learn from and to validate; the others test; repeatable."),
    ] = ()
    seed: Seed = 0
    overwrite: Overwrite = False
    notify: Notify = log_message


@dataclass(frozen=True)
class CohortSettings:
    """Which virtual people are made."""

    subjects: Annotated[int, Option("Healthy subjects.", minimum=0)] = 20
    patients: Annotated[int, Option("Patients per pathology.", minimum=0)] = 5
    modalities: Annotated[
        tuple[str, ...],
        Option("T1w, T2w, FLAIR, random (synthetic contrast).", ("--modality",), known=(*MODALITIES, "random")),
    ] = ()
    pathologies: Annotated[
        tuple[str, ...],
        Option(
            "ms, stroke, tumour, wmh (the default), cavity, haemorrhage, mass.", ("--pathology",), known=PATHOLOGIES
        ),
    ] = ()
    seed: Seed = 0
    spacing_mm: Spacing = 2.0
    labels: Annotated[Path | None, Option("Folder of label maps (FreeSurfer, SynthSeg) as anatomies.")] = None
    t1: Annotated[Path | None, Option("Healthy T1 scans as anatomies: a folder or a manifest.")] = None
    variety: Annotated[Literal["usual", "wide"], Option("wide: many scanners, artefacts, imperfect stripping.")] = (
        "usual"
    )
    prefix: Annotated[str, Option("Prefix of subject labels, for other subjects than those of another cohort.")] = ""
    ages: Annotated[
        str | None, Option("Youngest and oldest person in years: 65,90. Default: 20 to 85, patients by disease.")
    ] = None
    overwrite: Overwrite = False
    notify: Notify = log_message


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
class CalibrateSettings:
    """How thresholds are chosen and stored."""

    output: Annotated[
        Path | None, Option("New folder for the calibrated model; MODEL is not changed.", ("--output", "-o"))
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
            known=("normalised", "normalised_bright", "normalised_dark", "normalised_signed"),
        ),
    ] = None
    patients: Annotated[
        Path | None, Option("Another table (TSV) whose annotated scans of the split val take part, too.")
    ] = None
    plain: Annotated[bool, Option("Thresholds alone: findings do not grow, and no true volume is estimated.")] = False
    seed: Seed = 0
    device: Device = "auto"
    exams: Exams = False
    fusion: Fusion = "weighted_odds"
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
    fusion: Fusion = "weighted_odds"
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


@dataclass(frozen=True)
class DemoSettings:
    """The virtual patient of the demo; its training uses seed, device and `overwrite` only."""

    pathology: Annotated[str, Option("Disease of the virtual patient.", known=PATHOLOGIES)] = "tumour"
    spacing_mm: Annotated[float, Option("Voxel size of the virtual patient's scans.", minimum=1.0, maximum=4.0)] = 1.5
    threshold: Annotated[str, Option("As in detect: auto, a number, or a stored name (ml:1, fpr:0.01).")] = "auto"
    seed: Seed = 0
    device: Device = "auto"
    overwrite: Overwrite = False
    notify: Notify = log_message


@dataclass(frozen=True)
class ExportSettings:
    """A data set of nnU-Net, and the grid of its images."""

    dataset_id: Annotated[int, Option("Number of the data set, 1 to 999.")]
    name: Annotated[str, Option("Name of the data set.")]
    modalities: Annotated[
        tuple[str, ...], Option("Channels, in order; default: all of the manifest.", ("--modality",))
    ] = ()
    splits: Annotated[tuple[str, ...], Option("Only train, val or test; repeatable.", ("--split",))] = ()
    grid: Annotated[
        Literal["working", "native"], Option("working: preprocessed as for a model; native: not preprocessed.")
    ] = "working"
    model: Annotated[
        Path | None, Option("Preprocess as this model does; default: the default settings.", ("--model", "-m"))
    ] = None


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
    half: Annotated[bool, Option("Write 16-bit weights: half the size, slightly other scores.")] = False
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
