"""A model that compares features, from training to evaluation: its backbone file is needed once, anywhere."""

import csv
import json

import pytest
import torch
import yaml

from halebrain.models.backbone import Backbone

# Lightning warns about the machine, not about the run.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning.*")

ROWS = [("a", "FLAIR", "train", "healthy"), ("b", "FLAIR", "val", "healthy"), ("p", "FLAIR", "test", "ms")]
SETTINGS = {"backbone_width": 8, "channels": [8, 8]}
GRID = {"shape": [32, 32, 24], "spacing_mm": 6.0, "registration": "none", "bias_correction": "none"}
LOOP = {"steps": 2, "batch_size": 4, "validate_every": 1, "validation_batches": 1, "precision": "32-true"}


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(3)
    path = tmp_path / "backbone.pth"
    torch.save(Backbone("resnet18", width=8).state_dict(), path)
    return path


@pytest.fixture
def train(command, small_cohort, tmp_path):
    manifest = small_cohort(ROWS)
    config = tmp_path / "fae.yaml"
    spec = {"name": "fae", "settings": SETTINGS}
    config.write_text(yaml.safe_dump({"reconstructor": spec, "data": {"preprocessing": GRID}, "loop": LOOP}))

    def call(*more):
        arguments = ("-c", config, "--manifest", manifest, "-o", tmp_path / "run", "--device", "cpu", "--no-progress")
        return command("train", "reconstructor", *arguments, *more)

    return call


@pytest.mark.slow
def test_from_training_to_evaluation(command, train, weights, tmp_path):
    code, said = train("--set", f"reconstructor.settings.weights={weights}")
    assert code == 0, said.err
    model, manifest = tmp_path / "run" / "model", tmp_path / "cohort" / "manifest.tsv"
    assert "backbone.pth" not in (model / "config.yaml").read_text()
    # The run goes on with the file elsewhere: its content counts.
    moved = weights.rename(tmp_path / "moved.pth")
    (tmp_path / "run" / "model").rename(tmp_path / "first")
    code, said = train("--set", f"reconstructor.settings.weights={moved}")
    assert code == 0, said.err
    assert (model / "model.safetensors").read_bytes() == (tmp_path / "first" / "model.safetensors").read_bytes()
    moved.unlink()

    evaluate = ("evaluate", model, "--manifest", manifest, "--split", "test", "--threshold", 0.2, "--no-progress")
    code, said = command(*evaluate, "-o", tmp_path / "evaluated")
    assert code == 0, said.err
    assert json.loads((tmp_path / "evaluated" / "summary.json").read_text())
    with (tmp_path / "evaluated" / "scans.tsv").open() as handle:
        rows = [r for r in csv.DictReader(handle, delimiter="\t") if r["metric"] == "auprc"]
    assert {r["method"] for r in rows} >= {"model", "reconstruction alone"}
    code, said = command(*evaluate, "-o", tmp_path / "refused", "--reconstruction")
    assert code == 2
    assert "pseudo-healthy image, got fae" in said.err

    scan = next((tmp_path / "cohort").glob("sub-p_FLAIR.nii.gz"))
    code, said = command(
        "detect", "-m", model, "-i", scan, "-o", tmp_path / "found", "--threshold", 0.2, "--no-progress"
    )
    assert code == 0, said.err

    arguments = ("-c", "tiny", "--manifest", manifest, "-o", tmp_path / "stage2", "--no-progress")
    code, said = command("train", "segmenter", *arguments, "--reconstructor", model)
    assert code == 78
    assert "gives no reconstruction" in said.err


def test_without_the_file_nothing_is_trained(train):
    code, said = train()
    assert code == 78
    assert "random weights are never used" in said.err
