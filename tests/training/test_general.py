"""The recipe of docs/general.md, made small."""

import re
from pathlib import Path

import pytest

from halebrain.data.cohort.pathology import PATHOLOGIES
from halebrain.io.manifest import Manifest
from halebrain.models.bundle import load_bundle

PAGE = (Path(__file__).parents[2] / "docs" / "general.md").read_text(encoding="utf-8")
SIZES = "channels: [8, 16], blocks_per_level: 1, patch: 2, norm_groups: 4, attention_head_channels: 0"
UNET = f"reconstructor.settings.unet={{{SIZES}}}"


@pytest.mark.slow
def test_the_recipe_runs_and_goes_on(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    cohort = ["--subjects", "3", "--patients", "3", "--variety", "wide", "--spacing-mm", "4"]
    assert command("cohort", "-o", "cohort", *cohort, "--modality", "T2w", "--pathology", "mass")[0] == 0
    assert command("cohort", "-o", "other", "--variety", "wild")[0] == 2
    small = ["--manifest", "cohort/manifest.tsv", "--set", "data.cache=cache", "--set", "data.workers=1"]
    small += ["--set", "loop.steps=2", "--set", "loop.batch_size=4", "--set", "loop.validation_batches=1"]
    small += ["--set", "anomaly.settings.of.0.settings.patients=1"]
    assert command("train", "reconstructor", "-c", "general", "-o", "stage1", *small, "--set", UNET)[0] == 0
    second = ["train", "segmenter", "-c", "general", "-o", "stage2", "--reconstructor", "stage1/model", *small]
    second += ["--set", "pairs={annotated: 3, synthetic: 3, validation: 1}", "--set", "segmenter.channels=[8, 16]"]
    assert command(*second)[0] == 0
    bundle = load_bundle(tmp_path / "stage2" / "model")
    assert bundle.config.reconstructor.settings["heals"] is True
    assert bundle.training["stage2"]["pathologies"] == ["mass"]
    assert set(Manifest.read(tmp_path / "cohort" / "manifest.tsv").subjects()) >= {"mass001", "healthy001"}


def test_the_page_names_every_disease():
    assert sorted(set(re.findall(r"--pathology (\w+)", PAGE))) == PATHOLOGIES.names()
