"""A second look from a detector: trained, segmented on, and what is refused."""

import pytest
import torch
from safetensors.torch import load_file

from halebrain.models.store import load_model

UNET = "{channels: [8, 8], blocks_per_level: 1, patch: 4, norm_groups: 4, attention_head_channels: 0}"
TINY = (
    *("--set", "data.preprocessing={shape: [32, 32, 24], spacing_mm: 6.0, registration: none, bias_correction: none}"),
    *("--set", "loop={steps: 2, batch_size: 2, validate_every: 2, validation_batches: 1, checkpoint_every: 2}"),
    *("--no-progress", "--device", "cpu"),
)
ROWS = [
    ("h1", "FLAIR", "train", "healthy"),
    ("h2", "FLAIR", "val", "healthy"),
    ("p1", "FLAIR", "train", "ms"),
    ("p2", "FLAIR", "val", "ms"),
]


@pytest.fixture
def train(command, small_cohort, tmp_path):
    manifest = small_cohort(ROWS)

    def run(*more, name="second_look", filler=f"{{filler: {{unet: {UNET}}}}}"):
        own = ("--set", f"reconstructor.name={name}", "--set", f"reconstructor.settings={filler}")
        return command(
            "train", "reconstructor", "-o", tmp_path / "stage1", "--manifest", manifest, *TINY, *own, *map(str, more)
        )

    run.manifest = manifest
    return run


@pytest.mark.slow
def test_the_first_pass_is_the_detectors_and_stays_as_it_was(train, command, small_model, tmp_path):
    code, said = train("--set", f"detector={small_model}")
    assert code == 0, said.err
    made, detector = load_model(tmp_path / "stage1" / "model"), load_model(small_model)
    weights = load_file(tmp_path / "stage1" / "model" / "model.safetensors")
    for ours, network in (("finder", detector.reconstructor), ("doubter", detector.segmenter)):
        for name, weight in network.state_dict().items():
            torch.testing.assert_close(weights[f"reconstructor.{ours}.{name}"], weight, atol=0, rtol=0)
    # Whom the detector learned from, the new model has seen.
    assert "learned" in made.seen_subjects("train_subjects")
    assert str(small_model) not in (tmp_path / "stage1" / "model" / "manifest.json").read_text()

    size = ("--set", "segmenter={channels: [8, 16], patch: 2}")
    code, said = command(
        *("train", "segmenter", "-o", tmp_path / "stage2", "--reconstructor", tmp_path / "stage1" / "model"),
        *("--manifest", train.manifest, *TINY, *size, "--set", "regime=weak"),
    )
    assert code == 0, said.err
    assert "learned" in load_model(tmp_path / "stage2" / "model").seen_subjects("train_subjects")


@pytest.mark.parametrize(
    ("name", "more", "told"),
    [
        ("second_look", (), "detector=general"),
        ("ddpm", ("--set", "detector=MODEL"), "remove detector"),
        ("second_look", ("--set", "detector=nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_a_second_look_is_refused(train, small_model, tmp_path, name, more, told):
    more = [one.replace("MODEL", str(small_model)) for one in more]
    code, said = train(*more, name=name, filler="{}" if name == "ddpm" else f"{{filler: {{unet: {UNET}}}}}")
    assert code in {66, 78}
    assert told in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "stage1" / "model").exists()
