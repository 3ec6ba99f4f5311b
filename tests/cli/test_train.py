"""The training commands from end to end at toy size, on the small cohort."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from halebrain.cli.train import _same_size
from halebrain.core.errors import DataError
from halebrain.models.bundle import load_bundle, save_bundle
from halebrain.models.bundle_files import About, read_card, store_about
from halebrain.models.encoder_file import load_encoder
from halebrain.workflows.settings import TrainSettings
from halebrain.workflows.train import _prepare_folder

# Lightning warns about the machine, not about the run.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning.*")

GRID = "data.preprocessing={shape: [32, 32, 24], spacing_mm: 6.0, registration: none, bias_correction: none}"
QUICK = ["--set", "loop.steps=2", "--set", "loop.validate_every=2", "--device", "cpu", "--no-progress"]

PEOPLE = [("h1", "train", "healthy"), ("h2", "val", "healthy"), ("p1", "train", "ms"), ("p2", "val", "ms")]


@pytest.fixture
def manifest(small_cohort):
    rows = [("h1", "FLAIR", "train", "healthy"), ("h2", "FLAIR", "val", "healthy")]
    return small_cohort([*rows, ("p1", "FLAIR", "train", "ms"), ("p2", "FLAIR", "val", "ms")])


def train(command, what, manifest, out, *more):
    arguments = ["train", what, "-c", "tiny", "--manifest", manifest, "-o", out, *QUICK, *more]
    return command(*arguments)


@pytest.mark.slow
def test_a_reconstructor_starts_from_a_pretrained_encoder(command, manifest, tmp_path):
    code, said = train(command, "encoder", manifest, tmp_path / "e", "--set", GRID, "--set", "masked.cell=8")
    assert code == 0
    path = tmp_path / "e" / "encoder.safetensors"
    assert said.out.strip() == str(path)
    assert (tmp_path / "e" / "examples.png").stat().st_size > 1000
    assert load_encoder(path).training["train_subjects"] == ["h1"]
    # With no step taken, the encoder of the model is the pretrained one; its last layer is not in the file.
    start = ["--set", f"encoder_weights={json.dumps(str(path))}", "--set", "loop.lr=1e-30", "--set", "loop.ema_decay=0"]
    code, _ = train(command, "reconstructor", manifest, tmp_path / "r", "--set", GRID, *start)
    assert code == 0
    own = load_bundle(tmp_path / "r" / "model").reconstructor.encoder.state_dict()
    for name, value in load_encoder(path).weights.items():
        assert (own[name] - value).abs().max() < 1e-6, name
    # Whom the encoder saw, the model has seen.
    learned = load_bundle(tmp_path / "r" / "model").training["stage1"]["start"]
    assert learned == {"sha256": load_encoder(path).sha256, "encoder": load_encoder(path).training}
    assert f"weights of encoder {load_encoder(path).sha256[:12]}" in read_card(tmp_path / "r" / "model")
    code, said = train(
        command, "reconstructor", manifest, tmp_path / "r2", "--set", GRID, *start, "--set", "reconstructor={name: ae}"
    )
    assert code == 78
    assert "encoder" in said.err


@pytest.mark.slow
def test_one_command_pretrains_the_encoder_and_trains_the_reconstructor(command, manifest, tmp_path):
    first = "pretraining={cell: 8, decoder_width: 16, loop: {steps: 2, batch_size: 2, validate_every: 2}}"
    more = ["--set", GRID, "--set", first, "--set", f"data.cache={json.dumps(str(tmp_path / 'cache'))}"]
    still = ["--set", "loop.lr=1e-30", "--set", "loop.ema_decay=0"]
    assert train(command, "reconstructor", manifest, tmp_path / "r", *more, *still)[0] == 0
    (path,) = (tmp_path / "cache").glob("encoder-*/encoder.safetensors")
    own = load_bundle(tmp_path / "r" / "model").reconstructor.encoder.state_dict()
    for name, value in load_encoder(path).weights.items():
        assert (own[name] - value).abs().max() < 1e-6, name
    # A second reconstructor on the same scans finds it; another seed pretrains its own.
    made = path.stat().st_mtime_ns
    assert (
        train(command, "reconstructor", manifest, tmp_path / "s", *more, *still, "--set", "loop.batch_size=2")[0] == 0
    )
    assert (path.stat().st_mtime_ns, len(list((tmp_path / "cache").glob("encoder-*")))) == (made, 1)
    assert train(command, "reconstructor", manifest, tmp_path / "t", *more, *still, "--set", "seed=1")[0] == 0
    assert len(list((tmp_path / "cache").glob("encoder-*"))) == 2
    code, said = train(command, "reconstructor", manifest, tmp_path / "u", *more, "--set", "reconstructor={name: ae}")
    assert (code, "pretraining needs a reconstructor with an encoder" in said.err) == (78, True)
    # A file takes precedence.
    given = f"encoder_weights={json.dumps(str(path))}"
    assert (
        train(command, "reconstructor", manifest, tmp_path / "v", *more, *still, "--set", "seed=2", "--set", given)[0]
        == 0
    )
    assert len(list((tmp_path / "cache").glob("encoder-*"))) == 2


@pytest.mark.slow
def test_a_reconstructor_is_trained_further(command, manifest, tmp_path):
    assert train(command, "reconstructor", manifest, tmp_path / "a", "--set", GRID)[0] == 0
    first = tmp_path / "a" / "model"
    start = ["--set", f"start={json.dumps(str(first))}", "--set", "loop.lr=1e-30", "--set", "loop.ema_decay=0"]
    assert train(command, "reconstructor", manifest, tmp_path / "b", "--set", GRID, *start)[0] == 0
    old, new = load_bundle(first), load_bundle(tmp_path / "b" / "model")
    for name, value in new.reconstructor.state_dict().items():
        assert (old.reconstructor.state_dict()[name] - value).abs().max() < 1e-6, name
    assert new.training["stage1"]["start"]["sha256"] == old.sha256
    assert f"Began with the weights of model {old.sha256[:12]}" in read_card(tmp_path / "b" / "model")
    assert new.training["stage1"]["start"]["stage1"]["step"] == 2
    # Whom the first one saw is not unseen to the second, whatever its own manifest says.
    own = new.training["stage1"] | {"train_subjects": ["other"]}
    assert replace(new, training={"stage1": own}).seen_subjects("train_subjects") == {"other": "stage1", "h1": "stage1"}
    wider = ["--set", "reconstructor.settings.unet.channels=[24, 32, 48]"]
    code, said = train(command, "reconstructor", manifest, tmp_path / "c", "--set", GRID, *start, *wider)
    assert code == 78
    assert "size" in said.err


@pytest.mark.slow
def test_a_segmenter_is_trained_further_on_one_contrast_and_joined_by_contrast(command, small_cohort, tmp_path):
    rows = [(f"{who}", m, split, what) for who, split, what in PEOPLE for m in ("FLAIR", "T2w")]
    both = small_cohort(rows)
    assert train(command, "reconstructor", both, tmp_path / "r", "--set", GRID)[0] == 0
    needs = ["--reconstructor", tmp_path / "r" / "model", "--set", "pairs={annotated: 2, synthetic: 2, validation: 2}"]
    assert train(command, "segmenter", both, tmp_path / "a", *needs)[0] == 0
    first = tmp_path / "a" / "model"
    start = [*needs, "--set", f"start={json.dumps(str(first))}", "--set", "loop.lr=1e-30", "--set", "loop.ema_decay=0"]
    for name in ("FLAIR", "T2w"):
        code, said = train(command, "segmenter", both, tmp_path / name, *start, "--set", f"data.modalities=[{name}]")
        assert code == 0, said.err
    old, new = load_bundle(first), load_bundle(tmp_path / "T2w" / "model")
    for name, value in new.segmenter.state_dict().items():
        assert (old.segmenter.state_dict()[name] - value).abs().max() < 1e-6, name
    assert new.training["stage2"]["start"]["sha256"] == old.sha256
    assert new.training["stage2"]["start"]["stage2"]["step"] == 2
    own = new.training["stage2"] | {"train_subjects": ["other"]}
    seen = replace(new, training={"stage2": own}).seen_subjects("train_subjects")
    assert seen == dict.fromkeys(("other", "h1"), "stage2")
    wider = ["--set", "segmenter.channels=[16, 24]"]
    code, said = train(command, "segmenter", both, tmp_path / "c", *start, *wider)
    assert code == 78
    assert "same size" in said.err
    parts = [tmp_path / name / "model" for name in ("FLAIR", "T2w")]
    code, said = command("models", "join", *parts, "-o", tmp_path / "joined", "--by-contrast")
    assert code == 0, said.err
    assert load_bundle(tmp_path / "joined").segmenter.contrasts_each == (("FLAIR",), ("T2w",))
    assert "in 2 networks, for FLAIR, T2w" in (tmp_path / "joined" / "card.md").read_text()
    told = (
        "--licence",
        "CC0-1.0",
        "--citation",
        "c",
        "--author",
        "a",
        "--data",
        "d",
        "--figure",
        "f",
        "--limit",
        "T2w=l",
    )
    assert command("models", "describe", tmp_path / "joined", *told)[0] == 0
    further = [*needs[2:], "--set", f"start={json.dumps(str(tmp_path / 'joined'))}", *start[-4:]]
    further += ["--reconstructor", tmp_path / "joined", "--set", "data.modalities=[T2w]"]
    code, said = train(command, "segmenter", both, tmp_path / "further", *further)
    assert code == 0, said.err
    alone = load_bundle(tmp_path / "further" / "model")
    for name, value in alone.segmenter.state_dict().items():
        assert (new.segmenter.state_dict()[name] - value).abs().max() < 1e-6, name
    assert set(alone.training) == {"stage1", "stage2"}
    assert (alone.about.licence, alone.about.figures, alone.about.limits) == ("CC0-1.0", (), {})
    assert alone.training["stage2"]["start"]["stage2"] == new.training["stage2"]


@pytest.mark.slow
def test_both_networks_at_once(command, manifest, tmp_path):
    code, said = train(command, "joint", manifest, tmp_path / "j", "--set", GRID)
    assert code == 0, said.err
    bundle = load_bundle(tmp_path / "j" / "model")
    assert bundle.config.segmenter.streams == ("image", "reconstruction")
    assert bundle.config.postprocessing == {"residual_weight": 0.0}
    assert bundle.seen_subjects("train_subjects") == {"h1": "joint"}
    assert (tmp_path / "j" / "model" / "card.md").read_text().count("Research use only") == 1
    # A run that was ended before its picture has one when it is asked for again, and a score chosen since stays.
    (tmp_path / "j" / "loss.png").unlink()
    chosen = bundle.config.model_copy(update={"postprocessing": {"residual_weight": 0.3}})
    thresholds = {"default": {"ml:1": 0.5}}
    save_bundle(
        replace(bundle, config=chosen, calibration=thresholds), tmp_path / "j" / "model", card="", overwrite=True
    )
    assert train(command, "joint", manifest, tmp_path / "j", "--set", GRID)[0] == 0
    assert (tmp_path / "j" / "loss.png").is_file()
    kept = load_bundle(tmp_path / "j" / "model")
    assert (kept.config.postprocessing, kept.calibration) == ({"residual_weight": 0.3}, thresholds)


def test_a_joint_training_needs_a_restorer(command, manifest, tmp_path):
    code, said = train(command, "joint", manifest, tmp_path / "j", "--set", "reconstructor.name=ddpm")
    assert code == 78
    assert "ddpm" in said.err
    assert not (tmp_path / "j").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "streams", "weight"),
    [
        ("unet", ("image",), 0),
        ("unet_res", ("residual", "image"), 0),
        ("sadm", ("image",), 0.7),
        ("sadm_res", None, 0.7),
    ],
)
def test_the_papers_variants_go_by_name(command, manifest, small_model, tmp_path, variant, streams, weight):
    more = ["--reconstructor", small_model, "--variant", variant, "--set", "regime=weak"]
    code, said = train(
        command, "segmenter", manifest, tmp_path / "s", *more, "--set", "postprocessing.residual_weight=0.7"
    )
    if weight == 0:  # what is said on the command line goes last
        train(command, "segmenter", manifest, tmp_path / "t", *more)
    assert code == 0, said.err
    bundle = load_bundle(tmp_path / ("s" if weight else "t") / "model")
    assert bundle.config.segmenter.streams == (streams or ("residual", "image"))
    assert bundle.config.postprocessing.get("residual_weight") == weight


@pytest.mark.slow
def test_a_model_states_the_contrasts_and_diseases_that_it_learned_and_no_others(
    command, small_cohort, small_model, tmp_path
):
    rows = [(who, "FLAIR", split, what) for who, split, what in PEOPLE]
    judged = [("p3", "T2w", "test", "tumour"), ("p2", "T2w", "val", "ms"), ("h3", "T1w", "test", "healthy")]
    more = ["--reconstructor", small_model, "--set", "regime=both", "--set", "data.modalities=null"]
    code, said = train(command, "segmenter", small_cohort([*rows, *judged]), tmp_path / "s", *more)
    assert code == 0, said.err
    stated = load_bundle(tmp_path / "s" / "model").training["stage2"]
    assert (stated["modalities"], stated["pathologies"]) == (["FLAIR"], ["ms"])


@pytest.mark.slow
def test_a_licence_stays_with_the_weights_that_it_covers(command, manifest, small_model, tmp_path):
    about = About(licence="CC-BY-4.0", citation="A and B, 2025.", authors=("A", "B"), data="Ten brains.")
    store_about(small_model, about, card="# card")
    more = ["--reconstructor", small_model, "--variant", "unet", "--set", "regime=weak"]
    code, said = train(command, "segmenter", manifest, tmp_path / "s", *more)
    assert code == 0, said.err
    new = about.model_copy(update={"data": "Model of the reconstructor: Ten brains."})
    assert load_bundle(tmp_path / "s" / "model").about == new
    assert "Licence of the weights: CC-BY-4.0" in (tmp_path / "s" / "model" / "card.md").read_text()


@pytest.mark.parametrize(
    ("config", "option"), [("paper", ("-c", "paper")), ("my/own.yaml", ()), ("inpainting", ()), (None, ())]
)
def test_the_next_command_takes_a_configuration_that_fits_it(config, option):
    settings = TrainSettings(config=config and Path(config))
    assert _same_size(settings, "segmenter") == option


def test_overwrite_removes_what_a_run_made_and_nothing_else(tmp_path):
    run = tmp_path / "run"
    (run / "cache").mkdir(parents=True)
    _prepare_folder(run, overwrites=True)  # ended while its scans were read
    assert not any(run.iterdir())
    (run / "stage2" / "model").mkdir(parents=True)
    (run / "model").mkdir()
    for name in ("log.csv", "notes.txt"):  # ended before its first checkpoint
        (run / name).touch()
    _prepare_folder(run, overwrites=True)
    assert sorted(path.name for path in run.rglob("*")) == ["model", "notes.txt", "stage2"]
    with pytest.raises(DataError, match="--overwrite only replaces a run"):
        _prepare_folder(run, overwrites=True)
    assert (run / "notes.txt").exists()


def test_the_variants_are_the_segmenters():
    from tools.command_line import read_commands

    from halebrain.models.segmentation import VARIANTS

    (command,) = (command for command in read_commands() if command.name == "halebrain train segmenter")
    (variant,) = (option for option in command.options if option.name == "variant")
    assert set(variant.choices) == set(VARIANTS)
