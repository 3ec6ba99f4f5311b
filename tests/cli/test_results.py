"""What commands tell: a JSON document that holds everything, a box where somebody watches, lines everywhere else."""

import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import typer

from halebrain.cli.main import app
from halebrain.cli.results import Results, command_line, to_json
from halebrain.io.manifest import Manifest

# Lightning warns about the machine, not about the run.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning.*")

ROWS = [("p", "FLAIR", "test", "ms"), ("q", "FLAIR", "val", "ms"), ("h", "FLAIR", "val", "healthy")]
TRAINED = [("t", "FLAIR", "train", "ms"), ("g", "FLAIR", "train", "healthy"), *ROWS[1:]]
TUNING = (
    "tuning.loop={steps: 2, batch_size: 4, lr: 1.0e-2, precision: 32-true, validate_every: 1, validation_batches: 1,"
    " checkpoint_every: 2, ema_decay: 0.5, keep: last}"
)
MATRIX = """
manifest: training/manifest.tsv
pathologies: [ms]
seeds: [0]
preprocessing: {shape: [32, 32, 24], spacing_mm: 6.0, registration: none, bias_correction: none}
postprocessing: {residual: positive, median_size: 1}
reconstructor_defaults: {loop: {steps: 1, batch_size: 2, validate_every: 1, validation_batches: 1, precision: 32-true}}
reconstructors: {ae: {row: AE, settings: {reconstructor: {name: ae, settings: {channels: [8, 8]}}}}}
baselines: [intensity rank]
reference: AE
"""
RAW = [f"--set={pair}" for pair in ("shape=[32,32,24]", "spacing_mm=6", "registration=none", "bias_correction=none")]


@pytest.fixture
def place(bundled, small_model, small_cohort, tmp_path, monkeypatch):
    """A folder with a scan, a manifest, a BIDS data set, and a model that goes by name; the commands run in it."""
    manifest = small_cohort(ROWS)
    anat = tmp_path / "study" / "sub-01" / "anat"
    anat.mkdir(parents=True)
    scan = next(iter(Manifest.read(manifest))).image
    for path in (tmp_path / "sub-01_FLAIR.nii.gz", anat / "sub-01_FLAIR.nii.gz"):
        shutil.copy(scan, path)
    about = {"Name": "study", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (tmp_path / "study" / "dataset_description.json").write_text(json.dumps(about))
    monkeypatch.chdir(tmp_path)
    return tmp_path


LOOK = "-i sub-01_FLAIR.nii.gz -o out -m small_model --threshold 0.05 --no-progress"
BIDS = "study derivative participant -m small_model --threshold 0.1 --skip-bids-validation --no-progress"
TRAIN = (
    "-c tiny --manifest training/manifest.tsv -o run --device cpu --no-progress --set loop.steps=2"
    " --set loop.validate_every=2 --set 'data.preprocessing={shape: [32, 32, 24], spacing_mm: 6.0, registration: none,"
    " bias_correction: none}'"
)
ABOUT = "--licence CC-BY-4.0 --citation nobody --author somebody --data noise"
CASES = {
    "adapt": f"-m small_model --manifest cohort/manifest.tsv --pathology ms -o adapted --set {shlex.quote(TUNING)}"
    " --set tuning.synthetic_slices=8 --set steps_one_subject=1 --no-progress",
    "bids": BIDS,
    "benchmark": "-c matrix.yaml -o matrix --device cpu --no-progress",
    "calibrate": "small_model --manifest cohort/manifest.tsv --no-progress",
    "cohort": "-o virtual --subjects 1 --patients 0 --modality FLAIR --spacing-mm 4 --no-progress",
    "demo": "-o demo --spacing-mm 4 --threshold 0.05 --device cpu --no-progress",
    "detect": LOOK,
    "doctor": "",
    "evaluate": "small_model --manifest cohort/manifest.tsv --threshold 0.05 -o evaluation --no-progress",
    "folds": "--manifest training/manifest.tsv -o folds --folds 1 --val 1 --test 1 --weak ms=1:1",
    "export-nnunet": "--manifest cohort/manifest.tsv -o raw --dataset-id 7 --name Hale -m small_model --no-progress",
    "models describe": f"small_model {ABOUT}",
    "models export": "small_model -o small.zip",
    "models halve": "small_model -o half",
    "models import": "small_model --name mine",
    "models join": "small_model small_model -o joined",
    "models info": "general",
    "models list": "",
    "models second-look": "small_model --filler inpainter/model -o second",
    "models verify": "",
    "report": "found --no-progress",
    "train encoder": f"{TRAIN} --set masked.cell=8",
    "train joint": TRAIN,
    "train reconstructor": TRAIN,
    "train segmenter": f"{TRAIN} --reconstructor small_model",
    "tune": "small_model --manifest cohort/manifest.tsv -o tuned --no-progress",
    "prepare": f"-i cohort/manifest.tsv -o dataset --no-progress {' '.join(RAW)}",
}
WITHOUT = {"view"}
"""Commands without a document: it serves pages until it is ended, and prints where."""
FIELDS = {
    "adapt": {"output", "model", "files", "choice", "changes", "interval", "notes"},
    "bids": {"output", "index", "level", "exams", "failed", "left_out"},
    "benchmark": {"output", "files", "cells", "failed", "notes"},
    "calibrate": {"model", "scans", "subjects", "failed", "default", "thresholds", "modalities", "healthy_map"},
    "cohort": {"output", "manifest", "montage", "subjects", "scans", "left"},
    "demo": {"output", "page", "scans", "seconds"},
    "detect": {"output", "index", "scans", "failed", "left_out"},
    "doctor": {"versions", "machine", "brain extraction", "extras", "home"},
    "evaluate": {"output", "files", "failed", "left_out", "provenance", "set", "summaries", "comparisons"},
    "folds": {"output", "folds", "subjects", "notes"},
    "export-nnunet": {"output", "grid", "modalities", "cases"},
    "models describe": {"path", "bytes", "sha256", "about"},
    "models export": {"path", "bytes", "sha256"},
    "models halve": {"path", "bytes", "sha256"},
    "models import": {"path", "bytes", "sha256", "name"},
    "models join": {"path", "bytes", "sha256"},
    "models second-look": {"path", "bytes", "sha256"},
    "models info": {"path", "bytes", "sha256", "about", "config", "training", "calibration", "healthy_map"},
    "models list": {
        *("name", "default", "origin", "bytes", "path", "kind", "modalities", "sha256", "licence", "error"),
    },
    "models verify": {"name", "path", "whole", "sha256", "error"},
    "prepare": {
        *("output", "scans", "prepared", "kept", "problems", "failed", "left", "flagged", "files", "left_out"),
        *("lesion_ml", "lesion_outside_ml", "lesion_outside_scans"),
    },
    "report": {"output", "index", "pages", "failed"},
    "train encoder": {"output", "encoder", "log", "loss"},
    "train joint": {"output", "model", "log", "loss"},
    "train reconstructor": {"output", "model", "log", "loss"},
    "train segmenter": {"output", "model", "log", "loss"},
    "tune": {"output", "files", "model", "best", "failed"},
}
WRITTEN = ("output", "model", "encoder", "page", "manifest", "montage", "log", "loss", "path", "index", "table")
"""Fields that are paths of what must be there then."""
LONG = {"benchmark"}
"""Cases of more than a few seconds."""
NOISY = {"detect": "Detecting", "calibrate": "--threshold auto means", "prepare": "scans prepared"}


def commands(group=None, prefix=""):
    """Yield the name and the command of everything that can be called."""
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def test_every_command_but_those_named_has_json_and_is_tried_here():
    having = {name for name, command in commands() if any("--json" in param.opts for param in command.params)}
    assert having == set(CASES)
    assert {name for name, _ in commands()} - having == WITHOUT


@pytest.fixture
def ready(request, command, place, small_cohort):
    """The name of a command, with what it needs beyond the folder."""
    name = request.param
    if name.startswith("train") or name == "models second-look":
        small_cohort(TRAINED, "training")
    if name == "models second-look":
        unet = "{channels: [8, 8], blocks_per_level: 1, patch: 4, norm_groups: 4, attention_head_channels: 0}"
        own = f"--set reconstructor.name=inpainting --set 'reconstructor.settings={{unet: {unet}}}'"
        words = shlex.split(f"{TRAIN.replace('-o run', '-o inpainter')} {own}")
        assert command("train", "reconstructor", *words)[0] == 0
    if name == "report":
        assert command("detect", *shlex.split(LOOK.replace("-o out", "-o found")))[0] == 0
    if name in ("benchmark", "folds"):
        small_cohort([*TRAINED, ("w", "FLAIR", "test", "ms"), ("v", "FLAIR", "test", "healthy")], "training")
        (place / "matrix.yaml").write_text(MATRIX)
    return name


@pytest.mark.slow
@pytest.mark.parametrize(
    "ready", [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in CASES], indirect=True
)
def test_one_document_and_nothing_else(command, place, ready):
    name = ready
    code, said = command(*name.split(), *shlex.split(CASES[name]), "--json")
    assert code == 0, said.err
    found = json.loads(said.out)
    (first, *_) = found if isinstance(found, list) else [found]
    assert set(first) == FIELDS[name]
    assert not said.err.startswith("{")
    if name in NOISY and name != "detect":
        assert NOISY[name] in said.err
    documented = (Path(__file__).parents[2] / "docs" / "reference" / "json.md").read_text(encoding="utf-8")
    for path in [first[key] for key in WRITTEN if key in first]:
        assert path is None or Path(path).exists(), path
    for field in first:
        assert f"`{field}`" in documented, f"docs/reference/json.md does not speak of {field}"


@pytest.mark.slow
def test_a_detection_says_what_was_found_and_where(command, place):
    found = json.loads(command("detect", *shlex.split(LOOK), "--json")[1].out)
    (scan,) = found["scans"]
    told = json.loads(Path(scan["provenance"]).read_text())
    assert (scan["n_lesions"], scan["lesion_volume_ml"]) == (told["n_lesions"], told["lesion_volume_ml"])
    assert scan["threshold"]["value"] == 0.05
    for key in ("report", "score", "mask", "lesions"):
        assert Path(scan[key]).is_file(), key
    again = json.loads(command("detect", *shlex.split(LOOK), "--json")[1].out)
    assert again == found, "what is there is told as what is new"
    documented = (Path(__file__).parents[2] / "docs" / "reference" / "json.md").read_text(encoding="utf-8")
    assert all(f"`{field}`" in documented for field in scan)


@pytest.mark.slow
def test_scans_that_fail_stand_in_the_document_and_in_the_exit_code(command, place):
    (place / "many").mkdir()
    shutil.copy(place / "sub-01_FLAIR.nii.gz", place / "many" / "sub-02_FLAIR.nii.gz")
    (place / "many" / "sub-03_FLAIR.nii.gz").write_bytes(b"no scan at all")
    options = ("-m", "small_model", "--threshold", "0.05", "--no-progress", "--json")
    code, said = command("detect", "-i", "many", "-o", "out", *options)
    assert code == 3
    found = json.loads(said.out)
    assert [scan["scan"] for scan in found["scans"]] == ["sub-02_FLAIR"]
    assert [scan["scan"] for scan in found["failed"]] == ["sub-03_FLAIR"]
    assert found["index"] == "out/index.html"
    assert "sub-03_FLAIR" in said.err


@pytest.mark.slow
@pytest.mark.parametrize("many", [False, True])
def test_after_many_scans_the_box_offers_to_go_through_them(command, place, many, monkeypatch):
    (place / "many").mkdir()
    shutil.copy(place / "sub-01_FLAIR.nii.gz", place / "many")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    code, said = command("detect", *shlex.split(LOOK.replace("sub-01_FLAIR.nii.gz", "many") if many else LOOK))
    assert code == 0, said.err
    assert "halebrain report out --threshold VALUE" in said.err
    assert ("open out/index.html in a browser" in said.err) == many
    assert ("halebrain view out " in said.err) == many


@pytest.mark.slow
def test_the_group_level_gives_the_rows_of_its_table(command, place):
    assert command("bids", *shlex.split(BIDS))[0] == 0
    code, said = command("bids", "study", "derivative", "group", "--json")
    assert code == 0, said.err
    found = json.loads(said.out)
    assert found["level"] == "group"
    assert found["index"] == "derivative/index.html"
    assert [row["scan"] for row in found["scans"]] == ["sub-01/anat/sub-01_FLAIR.nii.gz"]


def test_where_it_ends_early_there_is_no_document(command, place):
    code, said = command("detect", "-i", "nowhere.nii.gz", "-o", "out", "--json")
    assert code == 66
    assert said.out == ""
    assert "the input must exist" in said.err


def test_what_is_no_number_is_null():
    found = json.loads(to_json({"a": float("nan"), "b": (Path("x"), float("inf")), 3: 0.5, "ü": True}))
    assert found == {"a": None, "b": ["x", None], "3": 0.5, "ü": True}


@pytest.fixture
def watched(monkeypatch, capsys):
    """Return what somebody at a terminal of 80 columns sees of a closing, and what a pipe gets."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")

    def close(*, terminal=True, as_json=False, **closing):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
        results = Results("train reconstructor", as_json=as_json)
        results.line("out/model")
        results.finish("stage 1 is trained", **closing)
        return capsys.readouterr()

    return close


def test_the_box_says_what_where_and_what_next(watched):
    then = command_line("train", "segmenter", "-c", "paper", "--manifest", "a folder/m.tsv", "-o", "stage2")
    said = watched(wrote=[Path("out/model")], then=[then])
    assert said.out == "out/model\n"
    for words in ("halebrain train reconstructor", "stage 1 is trained", "written  out/model", "next     halebrain"):
        assert words in said.err
    assert "'a folder/m.tsv'" in said.err
    assert "Research use only" in said.err


def test_a_long_command_can_be_copied_as_it_stands(watched):
    then = command_line("train", "segmenter", *(f"--option-{n}" for n in range(12)))
    shown = watched(then=[then]).err
    lines = shown[shown.index("next") + 4 : shown.rindex("Research")].split("\n")[:-1]
    joined = " ".join(line.strip() for line in lines if line.strip()).replace("\\ ", "")
    assert " ".join(shlex.split(joined)) == then
    assert all(len(line) <= 80 for line in shown.split("\n"))


@pytest.mark.parametrize("given", [{"terminal": False}, {"as_json": True, "document": {"a": 1}}])
def test_where_nobody_watches_there_is_no_box(watched, given):
    said = watched(wrote=[Path("out")], **given)
    assert said.err == ""
    assert said.out == ('{\n  "a": 1\n}\n' if given.get("as_json") else "out/model\n")
