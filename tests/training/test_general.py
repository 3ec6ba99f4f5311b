"""The recipe of docs/how-to/general-model.md, made small."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from halebrain.io.manifest import Manifest
from halebrain.io.nifti import write_volume
from halebrain.models.bundle import load_bundle
from halebrain.preprocessing.geometry import working_grid
from halebrain.simulation.anatomy import CSF, GM, VENTRICLE, WM, template_tissues
from halebrain.simulation.pathology import PATHOLOGIES

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "general-model.md").read_text(encoding="utf-8")
CONTRASTS = ("T1w", "T2w", "FLAIR")
RECIPE = re.search(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL).group(1)
GRID = "--set 'data.preprocessing={brain: auto, shape: [48, 48, 40], spacing_mm: 4.0}'"
SIZES = "channels: [8, 16], blocks_per_level: 1, patch: 2, norm_groups: 4, attention_head_channels: 0"
LOOP = (
    "--set loop.steps=2 --set loop.batch_size=4 --set loop.validation_batches=1 "
    "--set anomaly.settings.of.0.settings.patients=1"
)
SEGMENTER = "--set 'pairs={annotated: 3, synthetic: 3, validation: 1}' --set 'segmenter.channels=[8, 16]'"
SMALLER = {
    "--workers 2": "--workers 1",
    "halebrain prepare": "halebrain prepare --set 'shape=[48, 48, 40]' --set spacing_mm=4.0",
    "halebrain cohort": "halebrain cohort --spacing-mm 4",
    "data.workers=2": "data.workers=0",
    "--subjects 120 --patients 50": "--subjects 4 --patients 3",
    "--subjects 10 --patients 140": "--subjects 2 --patients 1",
    "--subjects 24 --split": "--subjects 6 --split",
    "-o general/stage1": f"-o general/stage1 {LOOP} {GRID} --set 'reconstructor.settings.unet={{{SIZES}}}'",
    "-o general/inpainter": f"-o general/inpainter {LOOP} {GRID} --set 'reconstructor.settings.unet={{{SIZES}}}'",
    "-o general/stage2": f"-o general/stage2 {LOOP} {SEGMENTER}",
    **{f"-o general/{modality}": f"-o general/{modality} {LOOP} {SEGMENTER}" for modality in ("T1w", "T2w", "FLAIR")},
    "--set loop.steps=17000": "--set loop.steps=2",
}
"""What makes the recipe one of a minute."""


def raw_data(folder, command):
    """Write what the recipe begins with: T1 scans of healthy people, a label map, a lesion mask."""
    cohort = ("--subjects", 4, "--patients", 0, "--seed", 5, "--modality", "T1w", "--spacing-mm", 3, "--no-progress")
    assert command("cohort", "-o", folder / "raw", *cohort)[0] == 0
    (folder / "healthy_t1").mkdir()
    for record in Manifest.read(folder / "raw" / "manifest.tsv"):
        # Other people than those of the cohort to come.
        shutil.copy(record.image, folder / "healthy_t1" / f"real{record.subject}_T1w.nii.gz")
    tissues = template_tissues((64, 64, 52), 3.0)
    numbers = np.zeros(5, np.int16)
    numbers[[WM, GM, CSF, VENTRICLE]] = 2, 3, 24, 4
    labels = np.where(tissues.sum(axis=0) > 0.5, numbers[tissues.argmax(axis=0)], 0).astype(np.int16)
    (folder / "labels").mkdir()
    write_volume(folder / "labels" / "one.nii.gz", labels, working_grid((64, 64, 52), 3.0).affine, dtype=np.int16)
    lesion = np.zeros((96, 96, 80), np.uint8)
    lesion[30:40, 40:52, 36:44] = 1
    (folder / "lesion_masks").mkdir()
    write_volume(folder / "lesion_masks" / "one.nii.gz", lesion, working_grid((96, 96, 80), 2.0).affine, dtype=np.uint8)


def recipe_for(contrasts):
    """Return the recipe with a segmenter of its own, and thresholds, for some of the three contrasts only."""
    script = RECIPE
    for contrast in set(CONTRASTS) - set(contrasts):
        training = rf"halebrain train segmenter -c general -o general/{contrast} (?:.*\\\n)*.*\n"
        script, trained = re.subn(training, "", script)
        script, calibrated = re.subn(rf"halebrain calibrate .*--modality {contrast}\b.*\n", "", script)
        script = script.replace(f"--modality {contrast} ", "").replace(f"general/{contrast}/model ", "")
        assert (trained, calibrated) == (1, 1)
    return script


@pytest.mark.slow
@pytest.mark.parametrize(
    "contrasts", [("FLAIR",), pytest.param(("T1w", "T2w", "FLAIR"), marks=pytest.mark.sweep)], ids="-".join
)
def test_the_recipe_of_the_page_runs_from_raw_scans_to_a_model_with_a_name(tmp_path, command, programs, contrasts):
    raw_data(tmp_path, command)
    script = recipe_for(contrasts)
    for large, small in SMALLER.items():
        assert large in RECIPE
        script = script.replace(large, small)
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"HALEBRAIN_HOME": str(tmp_path / "home")}
    settings = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "check": False}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], **settings)
    assert done.returncode == 0, done.stderr[-3000:]
    bundle = load_bundle(tmp_path / "general" / "stage2" / "model")
    assert bundle.config.reconstructor.settings["train_with_anomalies"] is True
    assert bundle.training["stage2"]["pathologies"] == PATHOLOGIES.names()
    assert str(tmp_path) not in (tmp_path / "general" / "stage2" / "model" / "manifest.json").read_text()
    anatomies = {path.name.split("-")[0] for path in (tmp_path / "cohort" / "anatomies").iterdir()}
    assert anatomies == {"labels", "t1"}
    joined = load_bundle(tmp_path / "general" / "model")
    assert joined.config.reconstructor.settings["doubter"] is None
    count = len(contrasts)
    assert joined.segmenter.contrasts_each[:count] == tuple((name,) for name in contrasts)
    assert [joined.segmenter.asked(name) for name in ("FLAIR", "PDw")] == [(count - 1,), (count,)]
    assert joined.calibration["default"] == "ml:1"
    assert set(joined.calibration["healthy_scores"]) == set(contrasts)
    assert list((tmp_path / "home").rglob("*general*"))


def test_the_page_names_every_disease():
    assert sorted(set(re.findall(r"--pathology (\w+)", PAGE))) == PATHOLOGIES.names()
