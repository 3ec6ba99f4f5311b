"""Models with a name and models on disk: listed, shown, verified, described and joined."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from halebrain.core.config import parse_config
from halebrain.core.errors import DataError, HalebrainError, UnavailableError, UsageError
from halebrain.core.messages import Notify, log_message
from halebrain.core.modality import standard_modality
from halebrain.core.wording import counted
from halebrain.models.bundle import Bundle, has_half_weights, load_bundle, read_summary, save_bundle
from halebrain.models.bundle_files import About, read_card, store_about
from halebrain.models.card import model_card
from halebrain.models.healthy_map import HealthyResidual
from halebrain.models.joining import join_models
from halebrain.models.second_pass import with_second_look
from halebrain.models.store import DEFAULT_MODEL, find_model, size_bytes, stored_models
from halebrain.preprocessing.pipeline import PreprocessingConfig
from halebrain.thresholds.calibration import Threshold, read_calibration
from halebrain.workflows.settings import DescribeSettings, JoinSettings, SecondLookOptions


@dataclass(frozen=True)
class NamedModel:
    """A model that can be named instead of its path, a zip; `kind` is `None` and `error` says why where it is damaged.

    `origin` is "bundled" with the package, or "imported".
    """

    name: str
    default: bool
    origin: str
    bytes: int
    path: Path
    kind: str | None = None
    modalities: tuple[str, ...] = ()
    sha256: str | None = None
    licence: str | None = None
    error: str | None = None


def list_models() -> list[NamedModel]:
    """Return every model that has a name; a damaged one with its error."""
    found = []
    for model in stored_models():
        is_default, size = model.name == DEFAULT_MODEL, size_bytes(model.path)
        entry = NamedModel(model.name, is_default, model.origin, size, model.path)
        try:
            summary = read_summary(model.path)
        except HalebrainError as error:
            found.append(replace(entry, error=str(error)))
            continue
        licence = None if summary.about is None else summary.about.licence
        modalities, sha256 = tuple(summary.modalities), summary.sha256
        found.append(replace(entry, kind=summary.kind, modalities=modalities, sha256=sha256, licence=licence))
    return found


@dataclass(frozen=True)
class VerifiedModel:
    """A model of which every file and weight was checked; damaged ones have an error in place of a hash."""

    name: str
    path: Path
    whole: bool
    sha256: str | None
    error: str | None


def verify_models(model: Path | None = None, *, notify: Notify = log_message) -> list[VerifiedModel]:
    """Check every file against its hash, and every weight against its network; `None` = every model that has a name.

    `notify` receives what is damaged; a damaged model that was given is an error.
    """
    if model is not None:
        path = find_model(model)
        return [VerifiedModel(model.name, path, True, load_bundle(path).sha256, None)]
    rows = []
    for stored in stored_models():
        try:
            rows.append(VerifiedModel(stored.name, stored.path, True, load_bundle(stored.path).sha256, None))
        except HalebrainError as error:
            notify(f"{stored.name}: {error}")
            rows.append(VerifiedModel(stored.name, stored.path, False, None, str(error)))
    if not rows:
        raise UnavailableError("there must be a model to verify", remedy="halebrain models import BUNDLE")
    return rows


def model_text(path: Path, bundle: Bundle) -> str:
    """Return a model's card, with licence, thresholds, size and hash."""
    lines = [read_card(path)]
    if bundle.about is None:
        lines.append("- Licence and citation: not stated (halebrain models describe)")
    if bundle.healthy_map is not None:
        lines += [_healthy_scans(name, one) for name, one in sorted(bundle.healthy_map.contrasts.items())]
    lines += [*_thresholds(bundle), f"- Size: {size_bytes(path) / 1e6:.1f} MB", f"- Hash: {bundle.sha256}"]
    return "\n".join(lines)


def _healthy_scans(contrast: str, one: HealthyResidual) -> str:
    people = counted(len(one.scans.subjects), "person", "people")
    return (
        f"- Healthy residual map of {contrast}: {counted(one.scans.n_scans, 'scan')} of {people} "
        f"(manifest {one.scans.manifest_sha256[:12]}), pooled over {one.scans.sigma_voxels:g} voxels"
    )


def _thresholds(bundle: Bundle) -> list[str]:
    calibration = read_calibration(bundle)
    if calibration is None:
        return ["- Thresholds: none yet (halebrain calibrate)"]
    lines = [f"- Default threshold: {calibration.default}"]
    for modality, table in {"": calibration.thresholds, **calibration.modalities}.items():
        lines += [_line(f"{name} for {modality}" if modality else name, one) for name, one in table.items()]
    for modality, scores in calibration.healthy_scores.items():
        lines.append(f"- Healthy scans behind a percentile, {modality}: {len(scores)}")
    return lines


def _line(name: str, threshold: Threshold) -> str:
    modalities = f" of {', '.join(threshold.modalities)}" if threshold.modalities else ""
    return (
        f"- Threshold {name}: {threshold.value:.4f}, {threshold.method}; "
        f"{counted(threshold.n_scans, 'scan')}{modalities}, split {threshold.split}"
    )


def describe_model(model: Path, settings: DescribeSettings) -> About:
    """Write licence, citation, authors, data, figures and limits into a bundle folder and its card."""
    weak: dict[str, str] = {}
    for limit in settings.limits:
        word, _, words = limit.partition("=")
        modality = standard_modality(word)  # scans are flagged by the BIDS suffix of their contrast
        if not word or not words or modality in weak:
            raise UsageError(
                "a limit must name a modality and the limit, each modality once",
                received=repr(limit),
                remedy="--limit T1w=WORDS",
            )
        weak[modality] = words
    said: dict[str, Any] = {**vars(settings), "limits": weak}
    about = parse_config(About, said, where="the options")
    store_about(model, about, card=model_card(replace(load_bundle(model), about=about)))
    return about


def join(models: Sequence[Path], output: Path, settings: JoinSettings) -> None:
    """Write a model with the segmenters of several models on the same reconstructor; it has no thresholds yet."""
    rest = settings.rest
    if rest is not None and (rest not in models or not settings.by_contrast):
        raise UsageError(
            "--rest must be one of the models joined with --by-contrast",
            received=str(rest),
            remedy="list it with the other models, too, and add --by-contrast",
        )
    place = None if rest is None else models.index(rest)
    bundles = [load_bundle(find_model(model)) for model in models]
    bundle = join_models(bundles, by_contrast=settings.by_contrast, rest=place)
    save_bundle(bundle, output, card=model_card(bundle), overwrite=settings.overwrite)


def add_second_look(model: Path, output: Path, settings: SecondLookOptions) -> Bundle:
    """Write a detector that fills what its segmenter doubts, and return it.

    Scores and thresholds are those of the detector. With weights of 16 bits that it did not have, scores are others,
    and there is no threshold.
    """
    detector, inpainter = (load_bundle(find_model(place)) for place in (model, settings.filler))
    one, other = (
        parse_config(PreprocessingConfig, bundle.config.preprocessing, where=bundle.where)
        for bundle in (detector, inpainter)
    )
    if one != other:
        raise DataError(
            "the inpainter of a second look needs the preprocessing of the detector",
            received="another one",
            where=settings.filler,
            remedy="train it with the same data.preprocessing",
        )
    bundle = with_second_look(detector, inpainter, doubt=settings.doubt, grow=settings.grow)
    if settings.half and not has_half_weights(detector):
        bundle = bundle.with_other_scores()
    save_bundle(bundle, output, card=model_card(bundle), overwrite=settings.overwrite, half=settings.half)
    return bundle
