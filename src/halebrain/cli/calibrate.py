"""`halebrain calibrate`: choose thresholds on validation scans and store them in the model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halebrain.cli import options
from halebrain.core.errors import MissingInputError

if TYPE_CHECKING:
    import torch

    from halebrain.evaluation.threshold import Calibration
    from halebrain.io.manifest import Manifest

_RATES = (0.01, 0.05, 0.1)


def calibrate(
    model: Annotated[Path, typer.Argument(help="Model bundle (a folder).")],
    manifest: options.ManifestPath,
    modality: Annotated[list[str] | None, typer.Option("--modality", help="Only these modalities.")] = None,
    pathology: Annotated[list[str] | None, typer.Option("--pathology", help="Only these diseases.")] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Of a data set: its thresholds are kept beside the others, as dice@NAME."),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    no_progress: options.NoProgress = False,
) -> None:
    """Choose thresholds on the split "val" and store them in MODEL, with a hash of the scans that they come from."""
    options.set_up(threads=threads, no_progress=no_progress)
    from halebrain.io.manifest import Manifest

    rows = Manifest.read(manifest).split("val")
    rows = rows.select(lambda r: not modality or r.modality in modality)
    rows = rows.select(lambda r: r.is_healthy or not pathology or r.pathology in pathology)
    calibration = run_calibration(model, rows, name=name, seed=seed, device=options.find_device(device))
    for stored, threshold in calibration.thresholds.items():
        typer.echo(f"{stored}\t{threshold.value:.4f}\t{threshold.method}\tn={threshold.n_scans}")


def run_calibration(
    model: Path, rows: "Manifest", *, seed: int, device: "torch.device", name: str | None = None
) -> "Calibration":
    """Fit every threshold on `rows` and store them in the bundle.

    Args:
        model: The bundle.
        rows: Validation scans.
        seed: The user's seed.
        device: Where the networks run.
        name: Of the data set; its thresholds are added to those that are there. `None` = they replace them all.

    Raises:
        MissingInputError: There is no validation scan.
        DataError: The model was trained on one of them.
    """
    from halebrain.evaluation.threshold import Calibration, Threshold, fit_best_dice, fit_false_positive_rate
    from halebrain.inference.cohort import score_manifest
    from halebrain.inference.predictor import Predictor
    from halebrain.models.bundle import load_bundle, store_calibration

    if len(rows) == 0:
        raise MissingInputError('calibration needs scans of the split "val"', where=rows.source or "manifest")
    bundle = load_bundle(model)
    options.refuse_seen(rows, bundle.seen_subjects("train_subjects"), "calibrated on")
    predictor = Predictor(bundle, device=device, seed=seed)
    healthy, scores, references = [], [], []
    for scored in score_manifest(predictor, rows, description="Calibrating"):
        score = scored.result.score[scored.result.brain_mask]
        if scored.lesion is not None and not scored.record.is_healthy:
            scores.append(score)
            references.append(scored.lesion[scored.result.brain_mask])
        elif scored.record.is_healthy:
            healthy.append(score)
    thresholds = {}
    about = {"split": "val", "manifest_sha256": rows.fingerprint()}
    if scores:
        value, dice = fit_best_dice(scores, references)
        thresholds["dice"] = Threshold(
            value=value, method="best pooled Dice", n_scans=len(scores), achieved=dice, **about
        )
    if healthy:
        for rate in _RATES:
            value, share = fit_false_positive_rate(healthy, rate)
            thresholds[f"fpr:{rate:g}"] = Threshold(
                value=value,
                method=f"{rate:.0%} of healthy voxels",
                n_scans=len(healthy),
                achieved=share,
                **about,
            )
    if not thresholds:
        raise MissingInputError("calibration needs healthy or annotated scans", where=rows.source or "manifest")
    default = "dice" if "dice" in thresholds else next(iter(thresholds))
    calibration = Calibration(default=default, thresholds=thresholds, subjects=tuple(rows.subjects()))
    if name is not None:
        calibration = calibration.named(name, beside=options.read_calibration(predictor.bundle))
    store_calibration(model, calibration.model_dump(mode="json"))
    return calibration
