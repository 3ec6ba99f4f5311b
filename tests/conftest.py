import base64
import os
import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from filelock import FileLock

from halebrain.core.progress import SETTINGS
from halebrain.io.bids_validator import PROGRAM, find_validator
from halebrain.io.manifest import Manifest, ScanRecord
from preloaded import preloaded_programs
from small_demo import SmallDemo

SETTINGS.enabled = False
# Tests run two at a time; more threads than cores would wait for each other.
torch.set_num_threads(1)


_LONGEST = ("training/test_general.py", "test_docs_cluster.py", "test_docs_commands.py")


def pytest_collection_modifyitems(items):
    """Begin with what takes longest: at the end it would keep one worker busy, and the other would wait."""
    items.sort(key=lambda item: not str(item.path).endswith(_LONGEST))


@pytest.fixture(scope="session")
def real_data():
    """The folder of real MRI, or a skip that says how to give it."""
    folder = Path(os.environ.get("HALEBRAIN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real MRI not found at {folder}; set HALEBRAIN_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id):
    """Make a folder once for all workers of a test run: the first makes it, the others wait for it."""
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "made-once"

    def make_once(name, make):
        """Return the folder `name`, filled by `make(folder)` when nobody has yet; only for reading."""
        folder, done = shared / name, shared / f"{name}.done"
        shared.mkdir(exist_ok=True)
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return make_once


@pytest.fixture(scope="session")
def small_demo(once):
    """The whole method at toy size; nobody writes into it."""
    from halebrain.workflows.demo_training import QUICK, run_trained_demo
    from halebrain.workflows.settings import DemoSettings

    return SmallDemo(once("demo", lambda folder: run_trained_demo(folder, QUICK, DemoSettings(device="cpu"))))


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """A folder for the front of the `PATH`: `halebrain` and `python` that start at once (`preloaded.py`)."""
    with preloaded_programs(tmp_path_factory.mktemp("preloaded")) as folder:
        yield folder


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium, driven by Playwright, or a skip that says what brings it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser test needs the package playwright")
    chromium = os.environ.get("HALEBRAIN_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium: install it, or name it in HALEBRAIN_CHROMIUM")
    with playwright.sync_playwright() as session:
        # A sandbox inside a container has no rights to be one.
        started = session.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def validator():
    """The BIDS validator, or a skip that says what brings it."""
    program = find_validator()
    if program is None:
        pytest.skip(f"the BIDS validator is not there: pip install {PROGRAM}")
    return program


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def make_case():
    """Make a case from small arrays; 1-D ones become a row of voxels, and every voxel counts."""
    from halebrain.evaluation.case import Case
    from halebrain.io.manifest import ScanRecord

    def solid(array, dtype):
        array = np.asarray(array, dtype=dtype)
        return array.reshape(-1, 1, 1) if array.ndim == 1 else array

    def make(reference, *, score=None, mask=None, region=None, spacing_mm=(1.0, 1.0, 1.0), **about):
        reference = solid(reference, bool)
        scan_id, axial_axis = about.pop("scan_id", "sub-a_FLAIR"), about.pop("axial_axis", 2)
        near_ventricles = about.pop("near_ventricles", np.ones(reference.shape, bool))
        about = {"subject": "a", "modality": "FLAIR", "pathology": "ms"} | about
        return Case(
            record=ScanRecord(image=Path("a.nii"), **about),
            scan_id=scan_id,
            reference=reference,
            region=np.ones(reference.shape, bool) if region is None else solid(region, bool),
            spacing_mm=spacing_mm,
            score=None if score is None else solid(score, np.float32),
            mask=None if mask is None else solid(mask, bool),
            axial_axis=axial_axis,
            near_ventricles=near_ventricles,
        )

    return make


@pytest.fixture(scope="session")
def untrained_model(tmp_path_factory):
    """A small model bundle with random weights: enough for geometry, refusals and formats."""
    from halebrain.models.bundle import Bundle, ModelConfig, build_networks, save_bundle

    unet = {"channels": [8, 8], "blocks_per_level": 1, "patch": 4, "norm_groups": 4, "attention_head_channels": 0}
    config = ModelConfig(
        kind="detector",
        reconstructor={"name": "ddpm", "settings": {"unet": unet, "noise": "gaussian", "test_levels": [500]}},
        segmenter={"channels": [8, 16], "patch": 2},
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "model"
    save_bundle(Bundle(config, *build_networks(config), {}, {}), folder, card="untrained")
    return folder


_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def undrawn(monkeypatch):
    """Pages of evaluations with a pixel for each figure: drawing takes most of the time of a small evaluation.

    For tests of what is scored and refused. Those that look at pages or compare them draw.
    """
    from halebrain.report import evaluation_page, page

    for name in [name for name in vars(evaluation_page) if name.endswith("_figure")]:
        monkeypatch.setattr(evaluation_page, name, lambda *_: "not drawn")
    monkeypatch.setattr(page, "figure_png", lambda *_, **__: _PIXEL)


AFFINE = np.diag([5.0, 5.0, 5.0, 1.0])
AFFINE[:3, 3] = [-90, -128, -74]
SHAPE = (36, 44, 34)


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command line; return its exit code and what it printed."""

    from halebrain.cli.main import main

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["halebrain", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        return int(caught.value.code or 0), capsys.readouterr()

    return call


@pytest.fixture
def small_model(tmp_path):
    """A detector with random weights on a coarse grid, without registration; it learned from "ms"."""
    import torch

    from halebrain.models.bundle import Bundle, ModelConfig, build_networks, save_bundle

    unet = {"channels": [8, 8], "blocks_per_level": 1, "patch": 4, "norm_groups": 4, "attention_head_channels": 0}
    config = ModelConfig(
        kind="detector",
        reconstructor={"name": "ddpm", "settings": {"unet": unet, "noise": "gaussian", "test_levels": [500]}},
        segmenter={"channels": [8, 16], "patch": 2},
        preprocessing={"shape": [32, 32, 24], "spacing_mm": 6.0, "registration": "none", "bias_correction": "none"},
        postprocessing={"residual": "positive", "median_size": 1},
    )
    torch.manual_seed(0)
    stage2 = {
        "config": {"loop": {"steps": 1, "batch_size": 1}, "seed": 0},
        "train_subjects": ["learned"],
        "val_subjects": [],
        "manifest_sha256": "0" * 64,
        "modalities": ["FLAIR"],
        "pathologies": ["ms"],
        "step": 1,
        "validation_loss": 0.5,
        "seconds": 1.0,
        "device": "cpu",
    }
    tuning = {
        "train_subjects": [],
        "val_subjects": ["earlier"],
        "manifest_sha256": "0" * 64,
        "tuned_for": "seen",
        "residual_weight": 0.5,
    }
    thresholds = {"default": "dice", "thresholds": {}, "subjects": []}
    bundle = Bundle(config, *build_networks(config), {"stage2": stage2, "tuning": tuning}, thresholds)
    save_bundle(bundle, tmp_path / "small_model", card="small")
    return tmp_path / "small_model"


@pytest.fixture
def bundled(small_model, tmp_path, monkeypatch):
    """The small model in the place of the one that comes with the package; return its zip."""
    from halebrain.models import store

    monkeypatch.setenv("HALEBRAIN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(store, "bundled_folder", lambda: tmp_path / "weights")
    store.export_model(small_model, tmp_path / "weights" / "general.zip")
    return tmp_path / "weights" / "general.zip"


@pytest.fixture
def small_cohort(tmp_path):
    """Make ellipsoids of noise in template space with bright cubes; return the path of their manifest."""

    def make(rows, folder="cohort"):
        """Take `(subject, modality, split, pathology)` tuples."""
        root = tmp_path / folder
        root.mkdir()
        records = [_scan(root, number, *row) for number, row in enumerate(rows)]
        Manifest(tuple(records)).write(root / "manifest.tsv")
        return root / "manifest.tsv"

    return make


def _scan(root, number, subject, modality, split, pathology):
    middle = [(n - 1) / 2 for n in SHAPE]
    index = np.stack(np.meshgrid(*[np.arange(n) - m for n, m in zip(SHAPE, middle, strict=True)], indexing="ij"), -1)
    inside = ((index * 5 / (65, 80, 60)) ** 2).sum(axis=-1) < 1
    data = np.where(inside, 100 + 30 * np.random.default_rng(number).random(SHAPE), 0).astype(np.float32)
    lesion = None
    if pathology != "healthy":
        truth = np.zeros(SHAPE, np.uint8)
        truth[14:20, 18:24, 14:19] = 1
        data[truth > 0] += 60
        lesion = _save(root / f"sub-{subject}_{modality}_mask.nii.gz", truth)
    image = _save(root / f"sub-{subject}_{modality}.nii.gz", data)
    return ScanRecord(subject=subject, image=image, modality=modality, split=split, pathology=pathology, lesion=lesion)


def _save(path, data):
    image = nibabel.Nifti1Image(data, AFFINE)
    image.set_sform(AFFINE, code=1)
    image.set_qform(AFFINE, code=1)
    nibabel.save(image, path)
    return path
