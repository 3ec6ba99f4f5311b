"""Training runs: start or resume one in its folder, and leave a model there with its card and its losses."""

import shutil
from pathlib import Path

from lightning_fabric import Fabric

from halebrain.core.config import dump_yaml, parse_config
from halebrain.core.device import find_device
from halebrain.core.errors import ConfigError, DataError
from halebrain.core.files import write_text
from halebrain.inference.anomaly_map import PostprocessingConfig
from halebrain.models.bundle import Bundle, load_bundle, model_sha256, save_bundle
from halebrain.models.card import model_card
from halebrain.models.encoder_file import save_encoder
from halebrain.models.store import load_model
from halebrain.preprocessing.pipeline import PreprocessingConfig
from halebrain.report.figures import loss_plot, masked_example, save_figure
from halebrain.training.encoder import EncoderTraining, train_encoder
from halebrain.training.fabric import launch
from halebrain.training.joint import JointTraining, train_joint
from halebrain.training.loop_config import LoopConfig
from halebrain.training.reconstructor import ReconstructorTraining, read_training_manifest, train_reconstructor
from halebrain.training.segmenter import train_segmenter
from halebrain.training.segmenter_config import SegmenterTraining


def run_encoder(settings: EncoderTraining, output: Path, *, device: str, overwrite: bool) -> Path:
    """Run or resume the pretraining of a condition encoder in `output` and return its file."""
    read_training_manifest(settings.data)  # a manifest that cannot be used is said before anything is written
    fabric = _start(settings.loop, output, device, overwrite)
    run = train_encoder(settings, output, fabric=fabric)
    path = output / "encoder.safetensors"
    save_encoder(run.network.encoder, settings.masked.encoder, run.summary, path)
    save_figure(loss_plot(output / "log.csv"), output / "loss.png")
    save_figure(masked_example(run.example.numpy()), output / "examples.png")
    return path


def run_reconstructor(settings: ReconstructorTraining, output: Path, *, device: str, overwrite: bool) -> Path:
    """Run or resume stage 1 in `output` and return the model folder."""
    read_training_manifest(settings.data)  # a manifest that cannot be used is said before anything is written
    fabric = _start(settings.loop, output, device, overwrite)
    bundle = train_reconstructor(settings, output, fabric=fabric)
    return _finish(bundle, output)


def run_segmenter(settings: SegmenterTraining, stage1: Path, output: Path, *, device: str, overwrite: bool) -> Path:
    """Run or resume stage 2 in `output` on the model `stage1` and return the model folder."""
    read_training_manifest(settings.data)
    parse_config(PostprocessingConfig, settings.postprocessing, where="postprocessing")
    bundle1 = load_model(stage1)
    settings = _with_preprocessing(settings, bundle1, stage1)
    fabric = _start(settings.loop, output, device, overwrite)
    return _finish(train_segmenter(settings, bundle1, output, fabric=fabric), output)


def run_joint(settings: JointTraining, output: Path, *, device: str, overwrite: bool) -> Path:
    """Run or resume a joint training in `output` and return the model folder."""
    read_training_manifest(settings.data)  # a manifest that cannot be used is said before anything is written
    parse_config(PostprocessingConfig, settings.postprocessing, where="postprocessing")
    fabric = _start(settings.loop, output, device, overwrite)
    return _finish(train_joint(settings, output, fabric=fabric), output)


def _with_preprocessing(settings: SegmenterTraining, stage1: Bundle, path: Path) -> SegmenterTraining:
    """Return the settings with the reconstructor's preprocessing: both stages must see the same images."""
    own = parse_config(PreprocessingConfig, stage1.config.preprocessing, where=path)
    if "preprocessing" in settings.data.model_fields_set and settings.data.preprocessing != own:
        raise ConfigError(
            "stage 2 must use the preprocessing of its reconstructor", where=path, remedy="remove data.preprocessing"
        )
    return settings.model_copy(update={"data": settings.data.model_copy(update={"preprocessing": own})})


def _start(loop: LoopConfig, output: Path, device: str, overwrite: bool) -> Fabric:
    chosen = find_device(device)
    if overwrite and output.exists():
        ours = all((output / name).is_file() for name in ("log.csv", "checkpoint.pt"))
        if any(output.iterdir()) and not ours:
            raise DataError(
                "--overwrite only replaces a run",
                received="another folder",
                where=output,
                remedy="choose another --output, or remove the folder yourself",
            )
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    return launch(loop, chosen)


def _finish(bundle: Bundle, output: Path) -> Path:
    model, loss = output / "model", output / "loss.png"
    # A finished run asked for again: its model stays, with the thresholds that it was given.
    is_new = not (model.exists() and model_sha256(load_bundle(model)) == model_sha256(bundle))
    if is_new:
        save_bundle(bundle, model, card=model_card(bundle), overwrite=True)
        write_text(output / "model_config.yaml", dump_yaml(bundle.config))
    if is_new or not loss.exists():  # a run that was ended between the two promised a picture
        save_figure(loss_plot(output / "log.csv"), loss)
    return model
