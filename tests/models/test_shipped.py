"""The models that come with the package, where this tree has them: whole, small, and with a card that says it all."""

import json
import re
import zipfile
from pathlib import Path

import pytest
import torch

from halebrain.models import store
from halebrain.models.bundle import load_bundle
from halebrain.models.bundle_files import read_card

SHIPPED = sorted(store.bundled_folder().glob("*"))
MAX_BYTES = 30_000_000


def test_they_are_zips_and_small_together():
    assert [path for path in SHIPPED if path.suffix != ".zip"] == []
    assert sum(path.stat().st_size for path in SHIPPED) <= MAX_BYTES
    assert not SHIPPED or store.DEFAULT_MODEL in {path.stem for path in SHIPPED}


@pytest.mark.skipif(not SHIPPED, reason="this tree has no bundled model")
def test_the_first_page_states_its_default_thresholds():
    page = (Path(__file__).parents[2] / "docs" / "get-started" / "first-scan.md").read_text(encoding="utf-8")
    with zipfile.ZipFile(store.bundled_folder() / f"{store.DEFAULT_MODEL}.zip") as bundle:
        calibration = json.loads(bundle.read("manifest.json"))["calibration"]
    for contrast in ("FLAIR", "T2w", "T1w"):
        value = calibration["modalities"][contrast][calibration["default"]]["value"]
        assert f"{value:.2f} ({contrast})" in page


@pytest.mark.slow
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_each_is_whole_and_says_where_it_comes_from(path):
    bundle, card = load_bundle(path), read_card(path)
    assert bundle.config.kind == "detector"
    assert bundle.calibration, "a shipped model has thresholds"
    tables = [bundle.calibration["thresholds"], *bundle.calibration["modalities"].values()]
    shares = [table[name].get("population_fraction") for table in tables for name in table if name.startswith("ml:")]
    assert shares
    assert all(shares), "pages say how many people keep a limit"
    assert bundle.about is not None
    for said in (bundle.about.licence, bundle.about.citation, bundle.about.data, *bundle.about.authors):
        assert said in card
    assert "Research use only" in card
    assert re.search(r"Learned from \d+ subjects", card)
    assert re.search(r"[\d.]+ (minutes|hours) on \S+, seed \d+", card)


@pytest.mark.slow
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_each_keeps_the_patient_in_its_pseudo_healthy_scan(path):
    reconstructor = load_bundle(path).reconstructor
    image = torch.rand(1, 1, 96, 96, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.2
    probability = torch.zeros_like(image)
    assert torch.equal(reconstructor.second_pass(image, probability), image)
    probability[..., 40:50, 40:50] = 0.5
    filled = reconstructor.second_pass(image, probability)
    changed = (filled != image)[0, 0]
    assert changed[40:50, 40:50].float().mean() > 0.9
    assert int(changed.sum()) <= 14**2  # two pixels around
