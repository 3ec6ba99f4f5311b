"""The model bundle: one folder (or zip) that holds everything needed to run a model, checked to the byte.

`model.safetensors` (weights), `config.yaml` (how to rebuild and preprocess), `card.md` (for people), `manifest.json`
(hashes of the others, versions, training summary, thresholds with the split that they were chosen on, and licence and
citation if stated), and `healthy_map.safetensors` if a healthy residual map was fitted. No pickle.
"""

import hashlib
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import safetensors.torch
import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError
from torch import nn

import halebrain
from halebrain.core.config import GrowingConfig, dump_yaml, parse_config, parse_yaml
from halebrain.core.errors import ConfigError, DataError
from halebrain.models.bundle_files import (
    CARD,
    CONFIG,
    FORMAT,
    HEALTHY_MAP,
    MANIFEST,
    WEIGHTS,
    About,
    checked_files,
    model_hash,
    name_of,
    sealed_text,
    write_files,
)
from halebrain.models.ensemble import AnySegmenter, Ensemble, EnsembleMember, present_weight_names
from halebrain.models.healthy_map import HealthyResiduals, HealthyScans
from halebrain.models.reconstruction import Reconstructor, ReconstructorSpec, build_reconstructor
from halebrain.models.segmentation import Segmenter, SegmenterConfig

FILLER = "filler"
"""Key of the inpainter of a second look among the stages of a training."""
_RECONSTRUCTOR_STAGES = ("stage1", "joint", FILLER)


class ModelConfig(GrowingConfig):
    """Everything that rebuilds a model.

    Args:
        kind: "reconstructor" after stage 1, "detector" after stage 2.
        reconstructor: The frozen first stage.
        segmenter: The second stage; `None` in a reconstructor bundle, and where there are several.
        ensemble_members: The networks of the second stage where there are several.
        preprocessing: Settings of the preprocessing that the model was trained with.
        postprocessing: Settings of the anomaly map.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"ensemble_members"})

    kind: Literal["reconstructor", "detector"]
    reconstructor: ReconstructorSpec
    segmenter: SegmenterConfig | None = None
    ensemble_members: tuple[EnsembleMember, ...] = ()
    preprocessing: dict[str, Any] = Field(default_factory=dict)
    postprocessing: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _read_former_form(cls, raw: Any) -> Any:
        """Read several networks as version 0.2 stored them: the first with the others inside."""
        first = raw.get("segmenter") if isinstance(raw, dict) else None
        if not isinstance(first, dict) or not isinstance(first.get("others"), list | tuple) or not first["others"]:
            return raw
        alone = {key: value for key, value in first.items() if key != "others"}
        return {**raw, "segmenter": None, "ensemble_members": [alone, *first["others"]]}


@dataclass(frozen=True)
class Bundle:
    """A model in memory: networks in eval mode, without gradients.

    Args:
        config: How it was built.
        reconstructor: Stage 1.
        segmenter: Stage 2, one network or several, or `None`.
        training: Training summary (data, seeds, steps, hours), one entry a stage.
        calibration: Thresholds with the split that they were chosen on; empty before `halebrain calibrate`.
        sha256: Hash of weights, configuration and healthy map; names the model in every result.
        path: Where it was read from.
        about: Licence, citation, authors and data in words; `None` if not stated.
        healthy_map: Mean and spread of the residual in healthy scans; `None` if not fitted.
    """

    config: ModelConfig
    reconstructor: Reconstructor
    segmenter: AnySegmenter | None
    training: dict[str, Any]
    calibration: dict[str, Any]
    sha256: str = ""
    path: Path | None = None
    about: About | None = None
    healthy_map: HealthyResiduals | None = None

    @property
    def name(self) -> str:
        """Name of the model: its zip, or its folder (the one around it where that is "model")."""
        if self.path is None:
            return "model"
        return name_of(self.path)

    @property
    def where(self) -> Path | str:
        """Its place in a message, or "model" for one in memory."""
        return self.path or "model"

    @property
    def limits(self) -> dict[str, str]:
        """Known limits of the model by modality, in words."""
        return {} if self.about is None else self.about.limits

    @property
    def modalities(self) -> tuple[str, ...]:
        """Contrasts that its stages learned from, sorted."""
        return _modalities(self.training)

    @property
    def reconstructor_training(self) -> Mapping[str, object]:
        """The stages of its training that the reconstructor comes from, with the inpainter of a second look."""
        return {stage: summary for stage, summary in self.training.items() if stage in _RECONSTRUCTOR_STAGES}

    def seen_subjects(self, *kinds: str) -> dict[str, str]:
        """Return which subjects the stages saw, and in which stage; those of a model that a stage began with too.

        `kinds` are "train_subjects", "val_subjects" or both.
        """
        return {s: stage for stage, summary in self.training.items() for s in _seen(summary, *kinds)}

    def learned_diseases(self, stages: Iterable[str] | None = None) -> frozenset[str]:
        """Return the diseases of the annotated scans that stages, or the models that they began with, learned from.

        `None` = all stages.
        """
        chosen = self.training if stages is None else stages
        return frozenset(name for stage in chosen for name in _seen(self.training[stage], "pathologies"))

    def with_other_scores(self) -> "Bundle":
        """Return the model without thresholds and performance figures, which belong to its scores."""
        about = None if self.about is None else self.about.model_copy(update={"figures": ()})
        return replace(self, calibration={}, about=about)

    def calibration_subjects(self) -> dict[str, str]:
        """Return the subjects on which thresholds were chosen or the healthy map was fitted."""
        of_map = () if self.healthy_map is None else self.healthy_map.subjects()
        subjects = dict.fromkeys(of_map, "healthy map")
        return subjects | dict.fromkeys(self.calibration.get("subjects", ()), "calibration")


def _modalities(training: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(sorted({name for stage in training.values() for name in stage.get("modalities", ())}))


def _seen(summary: Mapping[str, Any], *kinds: str) -> Iterator[str]:
    """Yield what a stage, or the model that it began with, saw of some kinds ("train_subjects", "pathologies")."""
    for kind in kinds:
        yield from summary.get(kind, ())
    for before in summary.get("start", {}).values():
        if isinstance(before, Mapping):  # the summary of a stage; beside it stands the model's hash
            yield from _seen(before, *kinds)


def build_networks(config: ModelConfig, *, where: object = "") -> tuple[Reconstructor, AnySegmenter | None]:
    """Build both networks with fresh weights from a configuration."""
    spec = config.reconstructor
    reconstructor = build_reconstructor(spec.name, spec.settings, where=where)
    if config.ensemble_members:
        return reconstructor, Ensemble(config.ensemble_members)
    return reconstructor, None if config.segmenter is None else Segmenter(config.segmenter)


def save_bundle(bundle: Bundle, path: Path, *, card: str, overwrite: bool = False, half: bool = False) -> str:
    """Write a bundle folder, whole or not at all, and return its hash.

    `half` rounds weights to 16 bits (float16), half the size; what is read back computes in 32 bits with the rounded
    weights: another model, with another hash. A weight that does not fit into 16 bits is an error.
    """
    files = {**_model_files(bundle, half=half), CARD: card.encode()}
    write_files(files | {MANIFEST: sealed_text(_manifest(files, bundle)).encode()}, path, overwrite=overwrite)
    return model_hash(files)


def model_sha256(bundle: Bundle) -> str:
    """Return the hash that the bundle would have on disk, whatever its thresholds."""
    return model_hash(_model_files(bundle))


def load_bundle(path: Path, *, device: torch.device | str = "cpu") -> Bundle:
    """Read a bundle folder or zip; every file is checked against its hash and every weight must have its place.

    Raises:
        MissingInputError: There is nothing at `path`.
        DataError: A file is missing, unknown or changed, or the weights do not fit the configuration.
        ConfigError: The configuration is not one that this version understands.
    """
    files, manifest = checked_files(path)
    config = _config(files, path)
    try:
        weights = present_weight_names(safetensors.torch.load(files[WEIGHTS]))
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(
            "weights must be a safetensors file", received=error, where=path / WEIGHTS, remedy="copy the bundle again"
        ) from error
    _check_weights(config, weights, path)
    reconstructor, segmenter = build_networks(config, where=path / CONFIG)
    networks = _together(reconstructor, segmenter)
    networks.load_state_dict(weights, strict=True)
    networks.to(device).eval().requires_grad_(False)
    return Bundle(
        config,
        reconstructor,
        segmenter,
        manifest["training"],
        manifest["calibration"],
        model_hash(files),
        path,
        _about(manifest, path),
        _healthy_map(files, manifest, path),
    )


@dataclass(frozen=True)
class BundleSummary:
    """Description of a model without building its networks: "reconstructor" or "detector", and sorted contrasts.

    `healthy_map` is contrast → scans of the healthy residual map, empty without one.
    """

    kind: str
    modalities: tuple[str, ...]
    sha256: str
    about: About | None
    healthy_map: Mapping[str, HealthyScans]


def read_summary(path: Path) -> BundleSummary:
    """Return the description of a bundle folder or zip, with every file checked against its hash."""
    files, manifest = checked_files(path)
    config = _config(files, path)
    healthy_map = _healthy_map(files, manifest, path)
    scans = {} if healthy_map is None else {name: one.scans for name, one in healthy_map.contrasts.items()}
    modalities = _modalities(manifest["training"])
    return BundleSummary(config.kind, modalities, model_hash(files), _about(manifest, path), scans)


def _model_files(bundle: Bundle, *, half: bool = False) -> dict[str, bytes]:
    networks = _together(bundle.reconstructor, bundle.segmenter)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in networks.state_dict().items()}
    if half:
        weights = {name: _halved(name, tensor) for name, tensor in weights.items()}
    files = {WEIGHTS: safetensors.torch.save(weights), CONFIG: dump_yaml(bundle.config).encode()}
    return files if bundle.healthy_map is None else files | {HEALTHY_MAP: bundle.healthy_map.to_bytes()}


def has_half_weights(bundle: Bundle) -> bool:
    """Return whether 16 bits hold every weight of a model, so that it stays the same with them."""
    weights = _together(bundle.reconstructor, bundle.segmenter).state_dict().values()
    return all(torch.equal(one.half().to(one.dtype), one) for one in weights if one.is_floating_point())


def _halved(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor
    rounded = tensor.half()
    if not rounded.isfinite().all():
        raise DataError(
            "every weight must fit into 16 bits",
            received=float(tensor.abs().max()),
            where=name,
            remedy="use the model with 32-bit weights",
        )
    return rounded


def _manifest(files: dict[str, bytes], bundle: Bundle) -> dict[str, Any]:
    added = {} if bundle.about is None else {"about": bundle.about.model_dump(mode="json")}
    added |= {} if bundle.healthy_map is None else {"healthy_map": bundle.healthy_map.about()}
    return {
        "format": FORMAT,
        "files": {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()},
        "versions": {
            "halebrain": halebrain.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "training": bundle.training,
        "calibration": bundle.calibration,
        **added,
    }


def _about(manifest: dict[str, Any], path: Path) -> About | None:
    return parse_config(About, manifest["about"], where=path / MANIFEST) if "about" in manifest else None


def _healthy_map(files: dict[str, bytes], manifest: dict[str, Any], path: Path) -> HealthyResiduals | None:
    if HEALTHY_MAP not in files:
        return None
    return HealthyResiduals.from_bytes(files[HEALTHY_MAP], manifest.get("healthy_map"), where=path / HEALTHY_MAP)


def _config(files: dict[str, bytes], path: Path) -> ModelConfig:
    return parse_config(ModelConfig, parse_yaml(files[CONFIG], where=path / CONFIG), where=path / CONFIG)


def _check_weights(config: ModelConfig, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Raise where weights are not those of the networks, or no numbers; a damaged configuration takes no memory."""
    try:
        with torch.device("meta"):
            networks = _together(*build_networks(config, where=path / CONFIG))
    except (RuntimeError, ArithmeticError, ValueError, TypeError, IndexError) as error:
        raise ConfigError(
            "a configuration must describe networks that can be built",
            received=error,
            where=path / CONFIG,
            remedy="copy the bundle again, or train it with this version",
        ) from error
    expected = {name: tensor.shape for name, tensor in networks.state_dict().items()}
    wrong = sorted(set(expected) ^ set(weights)) or sorted(k for k, s in expected.items() if weights[k].shape != s)
    if wrong:
        raise DataError(
            "weights must fit the configuration exactly",
            received=f"{len(wrong)} do not fit, first {wrong[0]}",
            where=path / WEIGHTS,
            remedy="copy the bundle again, or train it with this version",
        )
    if infinite := [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]:
        raise DataError(
            "every weight must be a finite number",
            received=f"{len(infinite)} tensors with other values, first {infinite[0]}",
            where=path / WEIGHTS,
            remedy="copy the bundle again, or train it with this version",
        )


def _together(reconstructor: Reconstructor, segmenter: AnySegmenter | None) -> nn.ModuleDict:
    """Return the networks of a model as one, whose weights have the names of a bundle."""
    networks: dict[str, nn.Module] = {"reconstructor": reconstructor}
    return nn.ModuleDict(networks if segmenter is None else networks | {"segmenter": segmenter})
