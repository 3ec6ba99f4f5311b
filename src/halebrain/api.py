"""The Python API of HaleBrain: the workflows of the commands, with the same settings, results and errors.

Each name is promised (docs/get-started/python.md) and is imported from `halebrain`, which alone loads none of the heavy
libraries. A path may be a text or a `pathlib.Path`. Warnings and notes go to the logger `halebrain`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from halebrain.core.errors import UsageError
from halebrain.core.parallel import ExecutorName
from halebrain.core.types import Lesion
from halebrain.inference.exam_outputs import DetectedExam, ExamFinding, ExamNames
from halebrain.inference.exams import given_exam
from halebrain.inference.outputs import OutputNames
from halebrain.inference.scans import PathLike, given_scan
from halebrain.io.nifti import make_image
from halebrain.models.bundle import Bundle
from halebrain.models.store import load_model
from halebrain.workflows import cohort as cohort_workflow
from halebrain.workflows import evaluate as evaluate_workflow
from halebrain.workflows.benchmark import BenchmarkResults, run_benchmark
from halebrain.workflows.calibrate import CalibrationResults, calibrate_on_manifest
from halebrain.workflows.cohort import VirtualCohort
from halebrain.workflows.detect import (
    DetectedScan,
    describe_scan,
    detect_scans,
    refuse_exams,
    write_found,
)
from halebrain.workflows.detections import Detections
from halebrain.workflows.detector import Detector, FoundAnomalies, find_anomalies, load_detector
from halebrain.workflows.evaluate import EvaluationResults
from halebrain.workflows.exam import refuse_scans_alone, write_found_exam
from halebrain.workflows.exam_detector import FoundExam, find_exam
from halebrain.workflows.folds import FoldTables, write_folds
from halebrain.workflows.prepare import PreparedScans, prepare_dataset
from halebrain.workflows.settings import (
    BenchmarkSettings,
    CalibrateSettings,
    CohortSettings,
    DetectSettings,
    EvaluateSettings,
    FoldSettings,
    PrepareSettings,
    SchedulerSettings,
    TrainSettings,
    check_value,
)
from halebrain.workflows.train import TrainedModel, run_reconstructor, run_segmenter

if TYPE_CHECKING:
    from nibabel import Nifti1Image
    from nibabel.spatialimages import SpatialImage

__all__ = [
    "ExamPrediction",
    "ExamScan",
    "Prediction",
    "Reconstruction",
    "benchmark",
    "calibrate",
    "detect",
    "detect_exam",
    "detect_many",
    "evaluate",
    "load_model",
    "make_cohort",
    "make_folds",
    "prepare",
    "reconstruct",
    "train_reconstructor",
    "train_segmenter",
]
Settings = TypeVar("Settings")


@dataclass(frozen=True, eq=False)
class Prediction:
    """Result of `detect`; every image is on the grid of the scan. Research use only.

    Args:
        score: Anomaly score in [0, 1], float32, 0 outside the brain.
        mask: 1 where the score reaches the threshold, uint8.
        reconstruction: Pseudo-healthy scan in the intensity units of the scan, float32.
        residual: Scan minus reconstruction in normalised units, signed, float32.
        probability: The segmenter's probability in [0, 1], float32.
        uncertainty: Standard deviation of the score over levels and draws, float32; of the probability where the
            residual is evidence.
        brain_mask: 1 where the score is defined, uint8.
        lesions: The connected components of the mask, largest first.
        qc: Quality-control figures; "flags" lists the quality flags.
        provenance: Model, threshold, seed, steps and versions that made it; JSON-able.
        filled: The scan with what was found, or `fill_mask`, filled as healthy tissue: outside the region its voxels
            to the last bit; `None` without `fill`. `save` writes the same bytes as `halebrain detect --also-fill`.
    """

    score: "Nifti1Image"
    mask: "Nifti1Image"
    reconstruction: "Nifti1Image"
    residual: "Nifti1Image"
    probability: "Nifti1Image"
    uncertainty: "Nifti1Image"
    brain_mask: "Nifti1Image"
    lesions: tuple[Lesion, ...]
    qc: dict[str, Any]
    provenance: dict[str, Any]
    _found: FoundAnomalies = field(repr=False)
    filled: "Nifti1Image | None" = None

    def save(self, folder: PathLike, *, name: str | None = None) -> DetectedScan:
        """Write the files of `halebrain detect` for this scan: maps, mask, lesion table, page and provenance.

        Args:
            folder: Output folder; files of the same scan in it are replaced.
            name: Name of the files; `None` = that of the scan's file, or "image" for an image in memory.

        Returns:
            The paths of the files, and what they say.

        Raises:
            CannotWriteError: The folder cannot be written, or holds results of exams.
        """
        made = self._found.made
        stem = name or str(made.scan)
        refuse_exams(Path(folder))
        return write_found(replace(self._found, made=replace(made, scan=stem)), OutputNames(Path(folder), stem))


def detect(
    image: "SpatialImage | str | os.PathLike[str]",
    *,
    model: "Bundle | str | os.PathLike[str] | None" = None,
    modality: str | None = None,
    brain_mask: "SpatialImage | str | os.PathLike[str] | None" = None,
    brain: str = "auto",
    threshold: float | str = "auto",
    min_lesion_mm3: float | None = None,
    device: str = "auto",
    seed: int = 0,
    draws: int = 1,
    fill: bool = False,
    fill_margin_mm: float = 2.0,
    fill_mask: "SpatialImage | str | os.PathLike[str] | None" = None,
    grow_to: float | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Prediction:
    """Detect anomalies in one scan; same results as `halebrain detect`.

    Args:
        image: The scan: a nibabel image, or a path in any format that `halebrain detect` reads.
        model: A loaded model, its path or its name; `None` = the default model.
        modality: Contrast of the scan ("FLAIR"); `None` = from the file name, else inferred from the image.
            It selects the threshold.
        brain_mask: Brain mask on the grid of the scan; `None` = extract the brain.
        brain: Brain extraction: auto, stripped, synthstrip, hdbet, deepbet or atlas.
        threshold: "auto", a number above 0, or the name of a stored threshold ("fpr:0.01").
        min_lesion_mm3: Smaller components are removed; `None` = the model's setting.
        device: auto, cpu, cuda, cuda:N or mps.
        seed: Random seed.
        draws: Noise samples per level.
        fill: Also return the lesion-filled scan.
        fill_margin_mm: How far the mask is grown before it is filled, mm.
        fill_mask: Mask on the grid of the scan that is filled instead of what is found.
        grow_to: Lower threshold to which findings of a threshold given as a number grow; `None` = they do not.
            Stored thresholds have their own.
        precision: Of the networks: "fp32", or "bf16", which takes less time where the device computes in it; scores
            change in the third decimal.

    Raises:
        HalebrainError: As the command; `exit_code` gives the kind.
    """
    if fill_mask is not None and not fill:
        raise UsageError("fill_mask needs fill", received="fill=False", remedy="add fill=True")
    if brain_mask is not None and brain != "auto":
        raise UsageError("brain and brain_mask exclude each other", received="both", remedy="remove one of them")
    detector = _detector(model, locals() | {"modality": modality or "auto"})
    scan = given_scan(image, brain_mask=brain_mask, fill_mask=fill_mask)
    return _prediction(find_anomalies(detector, scan, describe_scan(detector, scan)))


def _detector(model: "Bundle | PathLike | None", arguments: Mapping[str, Any]) -> Detector:
    """Return a model, loaded or to be loaded, with the options among the arguments of a function."""
    bundle = model if isinstance(model, Bundle) else None
    return load_detector(_settings(DetectSettings, {**arguments, "model": None if bundle else model}), bundle)


def _prediction(found: FoundAnomalies) -> Prediction:
    result, provenance = found.result, found.made.to_json()
    maps = {
        name: getattr(result, name) for name in ("score", "reconstruction", "residual", "probability", "uncertainty")
    }
    masks = {"mask": found.mask.astype("uint8"), "brain_mask": result.brain_mask.astype("uint8")}
    images = {
        name: make_image(data, result.affine, placement=result.placement) for name, data in (maps | masks).items()
    }
    findings = {"lesions": tuple(found.lesions), "qc": provenance["qc"], "provenance": provenance}
    filled = None if found.filling is None else found.filling.scan.image()
    return Prediction(**images, **findings, _found=found, filled=filled)


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A pseudo-healthy scan; every image is on the grid of the scan. Research use only.

    Args:
        image: Pseudo-healthy scan in the intensity units of the scan, float32.
        residual: Scan minus pseudo-healthy scan in normalised units, signed, float32.
        brain_mask: 1 where the brain is, uint8.
        qc: Quality-control figures; "flags" lists the quality flags.
    """

    image: "Nifti1Image"
    residual: "Nifti1Image"
    brain_mask: "Nifti1Image"
    qc: dict[str, Any]


def reconstruct(
    image: "SpatialImage | str | os.PathLike[str]",
    *,
    model: "Bundle | str | os.PathLike[str] | None" = None,
    brain_mask: "SpatialImage | str | os.PathLike[str] | None" = None,
    brain: str = "auto",
    device: str = "auto",
    seed: int = 0,
    draws: int = 1,
) -> Reconstruction:
    """Return the pseudo-healthy version of a scan, the same as that of `detect`, without running the segmenter.

    Args:
        image: The scan: a nibabel image, or a path in any format that `halebrain detect` reads.
        model: A loaded model of either stage, its path or its name; `None` = the default model.
        brain_mask: Brain mask on the grid of the scan; `None` = extract the brain.
        brain: Brain extraction: auto, stripped, synthstrip, hdbet, deepbet or atlas.
        device: auto, cpu, cuda, cuda:N or mps.
        seed: Random seed.
        draws: Noise samples per level.

    Raises:
        UsageError: The model compares features and gives no image.
        HalebrainError: As `detect`.
    """
    bundle = model if isinstance(model, Bundle) else load_model(None if model is None else Path(model))
    if not bundle.reconstructor.gives_image:
        raise UsageError(
            "a reconstruction needs a model that gives a pseudo-healthy image",
            received=bundle.config.reconstructor.name,
            remedy="use a model of another kind; halebrain models info MODEL shows it",
        )
    how: dict[str, Any] = {"brain_mask": brain_mask, "brain": brain, "device": device, "seed": seed, "draws": draws}
    found = detect(image, model=replace(bundle, segmenter=None), threshold=1.0, **how)
    return Reconstruction(found.reconstruction, found.residual, found.brain_mask, found.qc)


def detect_many(
    source: PathLike,
    output: PathLike,
    *,
    model: PathLike | None = None,
    modality: str | None = None,
    brain: str = "auto",
    threshold: float | str = "auto",
    min_lesion_mm3: float | None = None,
    device: str = "auto",
    seed: int = 0,
    draws: int = 1,
    batch_size: int | None = None,
    dicom_seg: bool = False,
    overwrite: bool = False,
    also_fill: bool = False,
    fill_margin_mm: float = 2.0,
    grow_to: float | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    compiled: bool = False,
    workers: int = 0,
    executor: ExecutorName = "processes",
    dask_address: str | None = None,
    dask_scheduler_file: PathLike | None = None,
    slurm: Sequence[str] = (),
) -> Detections[DetectedScan]:
    """Detect anomalies in every scan of an input and write their files, as `halebrain detect -i SOURCE -o OUTPUT`.

    Finished scans of an earlier call with the same settings are kept. A scan that fails does not stop the others.

    Args:
        source: A scan, a folder, a BIDS data set, a text list of paths, or a manifest.
        output: Output folder.
        model: Path or name of the model; `None` = the default model.
        modality: Contrast of every scan; `None` = from manifest or file name, else inferred from the image.
        brain: Brain extraction: auto, stripped, synthstrip, hdbet, deepbet or atlas.
        threshold: "auto", a number above 0, or the name of a stored threshold ("fpr:0.01").
        min_lesion_mm3: Smaller components are removed, mm³; `None` = the model's setting.
        device: auto, cpu, cuda, cuda:N or mps.
        seed: Random seed.
        draws: Noise samples per level.
        batch_size: Slices per batch, `None` = 16, on a GPU all; changes no score by more than 0.00001.
        dicom_seg: Also write the mask of DICOM scans as DICOM-SEG.
        overwrite: Replace results made with other settings.
        also_fill: Also write the lesion-filled scans.
        fill_margin_mm: How far the mask is grown before it is filled, mm.
        grow_to: Lower threshold to which findings of a threshold given as a number grow; `None` = they do not.
            Stored thresholds have their own.
        precision: Of the networks: "fp32", or "bf16", which takes less time where the device computes in it; scores
            change in the third decimal.
        compiled: Compile the networks by torch.compile: a minute at the first scan, for many scans on a GPU.
        workers: Number of scans in parallel, one process each; 0 = one after the other, in this process.
        executor: "processes" of this machine, "dask" (workers of a running cluster), or "submitit" (SLURM jobs).
        dask_address: Address of the Dask scheduler.
        dask_scheduler_file: The file that the Dask scheduler wrote, instead of its address.
        slurm: "key=value" of sbatch for SLURM jobs.

    Returns:
        The files of each scan, the page of all scans, and `failures.reasons`: scan → reason of those that failed.

    Raises:
        HalebrainError: The input, the model or a setting cannot be used, or the only scan failed.
    """
    scheduler = _settings(SchedulerSettings, locals())
    settings = _settings(DetectSettings, locals() | {"modality": modality or "auto"})
    return detect_scans(Path(source), Path(output), settings, schedule=scheduler.schedule(Path(output)))


@dataclass(frozen=True, eq=False)
class ExamScan:
    """One scan of an exam; every image is on its grid. Research use only.

    Args:
        name: Its name.
        contrast: Its contrast, a BIDS suffix; `None` = not known.
        score: Score of the exam in [0, 1], float32.
        mask: 1 where the score of the exam reaches its threshold, uint8.
        own_score: Score of this contrast alone in [0, 1], float32.
        reconstruction: Pseudo-healthy scan in the intensity units of the scan, float32.
        residual: Scan minus reconstruction in normalised units, signed, float32.
        brain_mask: 1 where the score is defined, uint8.
        filled: The scan with the mask of the exam filled; outside, its voxels to the last bit; `None` without `fill`.
    """

    name: str
    contrast: str | None
    score: "Nifti1Image"
    mask: "Nifti1Image"
    own_score: "Nifti1Image"
    reconstruction: "Nifti1Image"
    residual: "Nifti1Image"
    brain_mask: "Nifti1Image"
    filled: "Nifti1Image | None" = None


@dataclass(frozen=True, eq=False)
class ExamPrediction:
    """Result of `detect_exam`. Research use only.

    Args:
        score: Score of the exam in [0, 1] on the grid of the reference scan, float32.
        mask: 1 where the score reaches the threshold, on that grid, uint8.
        findings: The connected components of the mask, largest first, with what each contrast alone shows of them.
        scans: The scans that were fused, the reference first.
        not_used: The others: name → reason.
        flags: Quality flags.
        provenance: Scans, fusion, model, threshold, seed, steps and versions that made it; JSON-able.
    """

    score: "Nifti1Image"
    mask: "Nifti1Image"
    findings: tuple[ExamFinding, ...]
    scans: tuple[ExamScan, ...]
    not_used: Mapping[str, str]
    flags: tuple[str, ...]
    provenance: dict[str, Any]
    _found: FoundExam = field(repr=False)

    def save(self, folder: PathLike, *, name: str | None = None) -> DetectedExam:
        """Write the files of `halebrain detect --exam` for this exam.

        Args:
            folder: Output folder; files of the same exam in it are replaced.
            name: Name of the files; `None` = that of the exam.

        Returns:
            The paths of the files, and what they say.

        Raises:
            CannotWriteError: The folder cannot be written, or holds results of one of the scans alone.
        """
        made = self._found.made
        stem = name or made.exam
        names = ExamNames(Path(folder), stem)
        refuse_scans_alone(names, (*(scan.name for scan in self.scans), *self.not_used))
        return write_found_exam(replace(self._found, made=replace(made, exam=stem)), names)


def detect_exam(
    scans: "Mapping[str, SpatialImage | str | os.PathLike[str]] | Sequence[SpatialImage | str | os.PathLike[str]]",
    *,
    model: "Bundle | str | os.PathLike[str] | None" = None,
    brain_masks: "Mapping[str, SpatialImage | str | os.PathLike[str]] | None" = None,
    brain: str = "auto",
    threshold: float | str = "auto",
    min_lesion_mm3: float | None = None,
    fusion: str = "root_odds",
    device: str = "auto",
    seed: int = 0,
    draws: int = 1,
    fill: bool = False,
    fill_margin_mm: float = 2.0,
) -> ExamPrediction:
    """Detect anomalies in all scans of a person at one time; same results as `halebrain detect --exam`.

    Args:
        scans: Contrast → scan (`{"T1w": …, "FLAIR": …}`), or scans alone, whose contrasts are those of their file names
            or inferred from the images. A scan is a nibabel image, or a path.
        model: A loaded model, its path or its name; `None` = the default model.
        brain_masks: Contrast → brain mask on the grid of the scan, for some or all scans of a mapping.
        brain: Brain extraction: auto, stripped, synthstrip, hdbet, deepbet or atlas.
        threshold: "auto", a number above 0, or the name of a stored threshold ("fpr:0.01").
        min_lesion_mm3: Smaller components are removed; `None` = the model's setting.
        fusion: root_odds, weighted_odds, log_odds or mean.
        device: auto, cpu, cuda, cuda:N or mps.
        seed: Random seed.
        draws: Noise samples per level.
        fill: Also return every scan with the mask of the exam on its grid filled.
        fill_margin_mm: How far the mask is grown before it is filled, mm.

    Raises:
        HalebrainError: As the command; `exit_code` gives the kind.
    """
    exam = given_exam(scans, brain_masks)
    return _exam_prediction(find_exam(_detector(model, locals()), exam, fusion=fusion))


def _exam_prediction(found: FoundExam) -> ExamPrediction:
    scans = []
    for part in found.parts:
        maps = {"score": part.score, "own_score": part.own.score, "mask": part.mask.astype("uint8")}
        maps |= {"reconstruction": part.own.reconstruction, "residual": part.own.residual}
        maps |= {"brain_mask": part.own.brain_mask.astype("uint8")}
        images = {name: make_image(data, part.own.affine, placement=part.own.placement) for name, data in maps.items()}
        filled = None if part.filling is None else part.filling.scan.image()
        scans.append(ExamScan(name=part.name, contrast=part.contrast.name, **images, filled=filled))
    made = found.made
    return ExamPrediction(
        score=scans[0].score,
        mask=scans[0].mask,
        findings=tuple(found.findings),
        scans=tuple(scans),
        not_used=made.not_used,
        flags=made.flags,
        provenance=made.to_json(),
        _found=found,
    )


def prepare(
    scans: PathLike,
    output: PathLike,
    *,
    source: str | None = None,
    source_settings: Sequence[str] = (),
    config: PathLike | None = None,
    overrides: Sequence[str] = (),
    model: PathLike | None = None,
    brain: str | None = None,
    modality: str | None = None,
    pathology: str | None = None,
    split: str | None = None,
    seed: int = 0,
    workers: int = 1,
    threads: int = 1,
    overwrite: bool = False,
    template: PathLike | None = None,
    template_mask: PathLike | None = None,
    executor: ExecutorName = "processes",
    dask_address: str | None = None,
    dask_scheduler_file: PathLike | None = None,
    slurm: Sequence[str] = (),
) -> PreparedScans:
    """Preprocess raw scans into a data set with manifests and quality control, as `halebrain prepare`.

    Prepared scans of an earlier call with the same settings are kept. A scan that fails does not stop the others.

    Args:
        scans: Raw scans: a folder, BIDS, DICOM, a list, a manifest, or a published data set.
        output: The data set, new or existing.
        source: Layout of the input ("ixi", "brats", "folder", …); `None` = BIDS, a table, or names of files.
        source_settings: "key=value" for the layout.
        config: YAML file of preprocessing settings, or the name of a training configuration ("demo").
        overrides: "key=value" of the preprocessing.
        model: Preprocess as this model expects it.
        brain: Brain extraction; `None` = as the settings say, else auto.
        modality: Only scans of this contrast; also the contrast of scans whose names do not state it.
        pathology: Pathology of scans without one in the input: "healthy", or a disease.
        split: Fractions of subjects in train,val,test: "0.7,0.1,0.2".
        seed: Random seed of the split.
        workers: Number of scans in parallel, one process each.
        threads: CPU threads per process.
        overwrite: Replace earlier results.
        template: Your own atlas, a skull-stripped T1; `None` = MNI152NLin2009aSym.
        template_mask: Brain mask of an atlas that has its skull.
        executor: "processes" of this machine, "dask" (workers of a running cluster), or "submitit" (SLURM jobs).
        dask_address: Address of the Dask scheduler.
        dask_scheduler_file: The file that the Dask scheduler wrote, instead of its address.
        slurm: "key=value" of sbatch for SLURM jobs.

    Returns:
        What became of each scan, the files of the data set, and `failures.reasons`.

    Raises:
        HalebrainError: The input or a setting cannot be used, or the data set cannot be written.
    """
    settings, scheduler = (
        _settings(PrepareSettings, locals() | {"kind": source}),
        _settings(SchedulerSettings, locals()),
    )
    schedule = scheduler.schedule(Path(output), threads=threads)
    return prepare_dataset(Path(scans), Path(output), settings, schedule=schedule)


def make_cohort(
    output: PathLike,
    *,
    subjects: int = 20,
    patients: int = 5,
    modalities: Sequence[str] = (),
    pathologies: Sequence[str] = (),
    seed: int = 0,
    spacing_mm: float = 2.0,
    labels: PathLike | None = None,
    t1: PathLike | None = None,
    variety: Literal["usual", "wide"] = "usual",
    prefix: str = "",
    ages: tuple[float, float] | None = None,
    workers: int = 0,
    overwrite: bool = False,
    executor: ExecutorName = "processes",
    dask_address: str | None = None,
    dask_scheduler_file: PathLike | None = None,
    slurm: Sequence[str] = (),
    split: str | None = None,
) -> VirtualCohort:
    """Make virtual healthy brains and patients with exact ground truth, as `halebrain cohort`.

    Args:
        output: The folder of the cohort; the remaining part is made where it was begun with the same settings.
        subjects: Healthy subjects.
        patients: Patients per pathology.
        modalities: "T1w", "T2w", "FLAIR", "random" (synthetic contrast); empty = the first three.
        pathologies: "ms", "stroke", "tumour", "wmh" (these by default), "cavity", "haemorrhage", "mass".
        seed: Random seed.
        spacing_mm: Voxel size in mm, 1 to 4.
        labels: Folder of label maps (FreeSurfer, SynthSeg) as anatomies.
        t1: Healthy T1 scans as anatomies: a folder or a manifest.
        variety: "wide": many scanners, artefacts, imperfect stripping.
        prefix: Prefix of subject labels, for other subjects than those of another cohort.
        ages: Youngest and oldest person in years; `None` = 20 to 85, patients by disease.
        workers: Number of processes, one thread each; 0 = this process.
        overwrite: Replace an earlier cohort.
        executor: "processes" of this machine, "dask" (workers of a running cluster), or "submitit" (SLURM jobs).
        dask_address: Address of the Dask scheduler.
        dask_scheduler_file: The file that the Dask scheduler wrote, instead of its address.
        slurm: "key=value" of sbatch for SLURM jobs.
        split: Fractions of subjects in train, val and test: "0,0.5,0.5"; `None` = "0.7,0.15,0.15".

    Returns:
        The manifest, its path, and a picture of the cohort.

    Raises:
        HalebrainError: A setting or an anatomy cannot be used, or the folder holds another cohort.
    """
    given = None if ages is None else ",".join(f"{age:g}" for age in ages)
    settings, scheduler = _settings(CohortSettings, locals() | {"ages": given}), _settings(SchedulerSettings, locals())
    return cohort_workflow.make_cohort(Path(output), settings, schedule=scheduler.schedule(Path(output), threads=1))


def make_folds(
    output: PathLike,
    manifests: PathLike | Sequence[PathLike],
    *,
    folds: int = 5,
    val: int = 44,
    test: int = 160,
    weak: Mapping[str, tuple[int, int]] | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> FoldTables:
    """Split the subjects of prepared data sets into the folds of a benchmark, as `halebrain folds`.

    Args:
        output: New folder for `fold0.tsv`, `fold1.tsv` …, which `benchmark` takes as `folds`.
        manifests: Table of scans (TSV) of a data set, or several, which are used together.
        folds: Number of folds.
        val: Healthy validation subjects of each fold, others in each.
        test: Healthy test subjects, the same in each fold.
        weak: Disease → annotated subjects to learn from, and to validate on; its others, and those of the other
            diseases, test.
        seed: Random seed.
        overwrite: Replace an earlier folder of folds.

    Returns:
        The table of each fold, its subjects by split and condition, and notes on what is left out.

    Raises:
        HalebrainError: A table cannot be used, there are too few subjects, or the folder exists.
    """
    tables = [manifests] if isinstance(manifests, str | os.PathLike) else manifests
    counts = [f"{name}={train}:{validate}" for name, (train, validate) in (weak or {}).items()]
    return write_folds(Path(output), _settings(FoldSettings, locals() | {"manifests": tables, "weak": counts}))


def train_reconstructor(
    output: PathLike,
    *,
    config: PathLike | None = None,
    manifest: PathLike | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    overwrite: bool = False,
    devices: int = 1,
    nodes: int = 1,
) -> TrainedModel:
    """Train the reconstructor on healthy slices (stage 1), as `halebrain train reconstructor`.

    Args:
        output: Folder of the run, which is resumed where it exists; the model is `output/model`.
        config: YAML file, or the name of a shipped configuration ("demo", "paper").
        manifest: Table of scans; the same as the key `data.manifest`.
        overrides: "key=value" of the configuration; dotted keys.
        device: auto, cpu, cuda, cuda:N or mps.
        overwrite: Replace an earlier run.
        devices: Devices on each node that share the micro-batches of a step; the others are started as commands.
        nodes: Nodes, each with as many devices.

    Returns:
        The path of the model, and those of its losses.

    Raises:
        HalebrainError: The configuration, the scans or the device cannot be used.
    """
    return run_reconstructor(Path(output), _settings(TrainSettings, locals()))


def train_segmenter(
    output: PathLike,
    reconstructor: PathLike,
    *,
    variant: Literal["unet", "unet_res", "sadm", "sadm_res"] | None = None,
    config: PathLike | None = None,
    manifest: PathLike | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    overwrite: bool = False,
    devices: int = 1,
    nodes: int = 1,
) -> TrainedModel:
    """Train the segmenter on (scan, scan − reconstruction) (stage 2), as `halebrain train segmenter`.

    Args:
        output: Folder of the run, which is resumed where it exists; the model is `output/model`.
        reconstructor: Model of stage 1: a folder, a zip, or a name.
        variant: One of the paper's four variants; sets inputs and fusion.
        config: YAML file, or the name of a shipped configuration ("demo", "paper").
        manifest: Table of scans; the same as the key `data.manifest`.
        overrides: "key=value" of the configuration; dotted keys.
        device: auto, cpu, cuda, cuda:N or mps.
        overwrite: Replace an earlier run.
        devices: Devices on each node that share the micro-batches of a step; the others are started as commands.
        nodes: Nodes, each with as many devices.

    Returns:
        The path of the model, and those of its losses.

    Raises:
        HalebrainError: The configuration, the scans, the reconstructor or the device cannot be used.
    """
    settings = _settings(TrainSettings, locals())
    return run_segmenter(Path(output), Path(reconstructor), settings, variant=variant)


def calibrate(
    model: PathLike,
    manifest: PathLike,
    *,
    output: PathLike | None = None,
    modalities: Sequence[str] = (),
    pathologies: Sequence[str] = (),
    name: str | None = None,
    add: bool = False,
    default: str | None = None,
    population_fraction: float = 0.5,
    seed: int = 0,
    device: str = "auto",
    healthy_map: bool = False,
    residual: str | None = None,
    patients: PathLike | None = None,
    plain: bool = False,
    exams: bool = False,
    fusion: str = "root_odds",
    no_growth: bool = False,
    evidence: float | None = None,
) -> CalibrationResults:
    """Choose thresholds on the split "val" of a manifest and store them in the model, as `halebrain calibrate`.

    Args:
        model: Model folder; with `output` also a zip or a name.
        manifest: Table of scans.
        output: New folder for the calibrated model; `None` = the model itself is changed.
        modalities: Only these; empty = all.
        pathologies: Only these and healthy scans; empty = all.
        name: Name of the data set: its thresholds are stored separately, as "dice@NAME".
        add: Add the modalities of this manifest to the existing thresholds.
        default: Threshold that "auto" uses: "dice" if there are lesions, or "ml:1", "fpr:0.01" …
        population_fraction: Fraction of healthy people within the limit of "ml:" thresholds, 0.5 (the median) to 0.99.
        seed: Random seed.
        device: auto, cpu, cuda, cuda:N or mps.
        healthy_map: Fit the healthy residual map too, from the healthy scans, of five people a contrast or more; each
            threshold is chosen on scans that are compared with other people.
        residual: Residual map of the model from now on, such as "normalised" or "normalised_signed"; `None` = as it is.
        patients: Another table whose annotated scans of the split "val" take part, too.
        plain: Thresholds alone: findings do not grow, and no true volume is estimated.
        exams: Choose thresholds of exams, for every set of contrasts, beside those of scans.
        fusion: How the contrasts of an exam are fused: root_odds, weighted_odds, log_odds or mean.
        no_growth: Findings do not grow; their true volume is estimated all the same.
        evidence: Weight of the normalised residual as evidence beside the segmenter from now on, in log-odds for each
            standard deviation of healthy scans; `None` = as it is.

    Returns:
        The thresholds, the scans that were asked for, and `failures.reasons`.

    Raises:
        HalebrainError: Model, scans or a setting cannot be used, or the model was trained on a scan.
    """
    return calibrate_on_manifest(Path(model), Path(manifest), _settings(CalibrateSettings, locals()))


def evaluate(
    output: PathLike,
    *,
    model: PathLike | None = None,
    manifest: PathLike | None = None,
    predictions: PathLike | None = None,
    references: PathLike | None = None,
    brain_masks: PathLike | None = None,
    labels: str | None = None,
    split: str = "test",
    modalities: Sequence[str] = (),
    pathologies: Sequence[str] = (),
    threshold: float | str = "auto",
    min_lesion_mm3: float | None = None,
    grid: Literal["native", "working"] = "native",
    protocol: Literal["behrendt2024"] | None = None,
    reconstruction: bool = False,
    baselines: bool = False,
    seed: int = 0,
    device: str = "auto",
    grow_to: float | None = None,
    exams: bool = False,
    fusion: str = "root_odds",
    workers: int = 0,
    executor: ExecutorName = "processes",
    dask_address: str | None = None,
    dask_scheduler_file: PathLike | None = None,
    slurm: Sequence[str] = (),
) -> EvaluationResults:
    """Evaluate a model on a manifest, or result files of any method against references, as `halebrain evaluate`.

    Args:
        output: Output folder of the tables and the page.
        model: Path or name of the model; `None` = the default model.
        manifest: Table of scans for the model.
        predictions: Folder of anomaly maps or masks of any method, instead of model and manifest.
        references: Folder of true lesions, with `predictions`.
        brain_masks: Folder of brain masks, with `predictions`; `None` = every voxel counts.
        labels: Lesion labels, with `predictions`: "all", or numbers ("1,4").
        split: "train", "val", "test", or "all".
        modalities: Only these; empty = all.
        pathologies: Only these; empty = all.
        threshold: "auto", a number, or the name of a stored threshold.
        min_lesion_mm3: Smallest lesion kept, mm³; `None` = the model's setting.
        grid: "native", or the model's working grid (2 mm).
        protocol: "behrendt2024" = the paper's own numbers, on its grid.
        reconstruction: Also evaluate the reconstruction, at each noise level.
        baselines: More baselines without networks: an atlas of the healthy training scans.
        seed: Random seed.
        device: auto, cpu, cuda, cuda:N or mps.
        grow_to: Lower threshold to which findings of a threshold given as a number grow; `None` = they do not.
            Stored thresholds have their own.
        exams: All scans of a subject and session together, compared with each contrast alone.
        fusion: How the contrasts of an exam are fused: root_odds, weighted_odds, log_odds or mean.
        workers: Number of scans in parallel, one process each; 0 = one after the other, in this process.
        executor: "processes" of this machine, "dask" (workers of a running cluster), or "submitit" (SLURM jobs).
        dask_address: Address of the Dask scheduler.
        dask_scheduler_file: The file that the Dask scheduler wrote, instead of its address.
        slurm: "key=value" of sbatch for SLURM jobs.

    Returns:
        The figures with intervals, the files, and `failures.reasons`.

    Raises:
        HalebrainError: Model, scans, a folder or a setting cannot be used, or every scan failed.
    """
    settings, scheduler = _settings(EvaluateSettings, locals()), _settings(SchedulerSettings, locals())
    return evaluate_workflow.evaluate(Path(output), settings, schedule=scheduler.schedule(Path(output)))


def benchmark(
    output: PathLike,
    *,
    config: PathLike,
    overrides: Sequence[str] = (),
    device: str = "auto",
    folds: PathLike | None = None,
    only: Sequence[str] = (),
    devices: int = 1,
) -> BenchmarkResults:
    """Train and evaluate every method of a file on seen and unseen diseases, as `halebrain benchmark`.

    Args:
        output: Output folder; finished cells of an earlier call are kept.
        config: YAML file, or the name of a shipped configuration ("cpu", "tiny").
        overrides: "key=value" of the configuration; dotted keys.
        device: auto, cpu, cuda, cuda:N or mps.
        folds: Folder of `halebrain folds`; its tables take the place of the scans of the file.
        only: Patterns of keys, as "fold*/seed0/*": only these cells and those that they need; empty = all.
        devices: Devices of this machine; each trains other cells, in its own process.

    Returns:
        Finished cells, those that failed with the reason, and the files.

    Raises:
        HalebrainError: The configuration, the scans or the device cannot be used, or no cell has finished.
    """
    return run_benchmark(Path(output), _settings(BenchmarkSettings, locals()))


def _settings(kind: type[Settings], arguments: Mapping[str, Any]) -> Settings:
    """Return settings, filled with the arguments of a function that have the names of their fields.

    Raises:
        UsageError: The command would not take one of them.
    """
    filled = {}
    described = get_type_hints(kind, include_extras=True)
    for name, hint in get_type_hints(kind).items():
        if name in arguments:
            value = arguments[name]
            check_value(name, described[name], value)
            of_paths = Path in get_args(hint)
            if get_origin(hint) is tuple:
                if isinstance(value, str | os.PathLike):  # one is meant, and not its letters
                    value = (value,)
                value = tuple(Path(one) if of_paths else one for one in value)
            elif of_paths and value is not None:
                value = Path(value)
            filled[name] = str(value) if hint is str else value
    return kind(**filled)
