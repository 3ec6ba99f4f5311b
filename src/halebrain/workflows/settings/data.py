"""Settings of data sets: prepared, divided into folds, made, exported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from halebrain.core.messages import Notify, log_message
from halebrain.workflows.settings.option import MODALITIES, PATHOLOGIES, SOURCES, Option, Overwrite, Seed, Spacing


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
    split: Annotated[str | None, Option("Fractions of subjects in train,val,test. Default: 0.7,0.15,0.15.")] = None
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
