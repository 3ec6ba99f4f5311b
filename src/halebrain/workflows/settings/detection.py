"""Settings of detection: on scans, exams, BIDS data sets, and the patient of the demo."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from halebrain.core.errors import UsageError
from halebrain.core.messages import Notify, log_message
from halebrain.workflows.settings.option import (
    BRAINS,
    DEFAULT_FUSION,
    EXTRACTORS,
    MODALITIES,
    PATHOLOGIES,
    Device,
    Fusion,
    GrowTo,
    MinLesion,
    ModelPath,
    Option,
    Overwrite,
    Seed,
)


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
        if self.fill_margin_mm != DetectSettings.fill_margin_mm and not self.fills:
            raise UsageError(
                "--fill-margin-mm needs --fill or --also-fill",
                received=f"{self.fill_margin_mm:g} with neither",
                remedy="add one of them, or remove the margin",
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
    fusion: Fusion = DEFAULT_FUSION


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
    fusion: Fusion = DEFAULT_FUSION


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
