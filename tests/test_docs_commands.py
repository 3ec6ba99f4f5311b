"""The commands and the Python of the documents do their work as written, on the files that they speak of."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_maker import Maker
from scipy import ndimage

from halebrain.io.manifest import Manifest
from halebrain.models.store import export_model
from small_demo import SmallDemo, as_bids, stored_otherwise

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LARGEST = ("real_patients", "halebrain adapt")
"""Two patients in three contrasts, four methods each; tuning at full length, which cli/test_adapt.py does small."""
# A block that stands on two pages is run once.
FIRST = {
    block: page
    for page in reversed(PAGES)
    for block in re.findall(r"```(sh|python)\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)
    # `make` is run with a stand-in, by test_docs_scripts.py.
    if "make demo" not in block[1]
}
BLOCKS = [
    pytest.param(
        *(kind, text),
        id=f"{page.name}: {text.split(chr(10))[0][:40]}",
        marks=[pytest.mark.sweep] if any(name in text for name in LARGEST) else [],
    )
    for (kind, text), page in reversed(FIRST.items())
]


@pytest.fixture(scope="session")
def newcomer_files(small_demo: SmallDemo, once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The files that the documents speak of, made once; nobody changes them."""

    def make(folder: Path) -> None:
        shutil.copytree(small_demo.folder, folder / "demo-train", copy_function=os.link)
        # An imported model goes before a bundled one: the documents are tried with the demo's, whatever is bundled.
        export_model(small_demo.model, folder / "home" / "models" / "general.zip")
        for path in (small_demo.folder / "cohort").iterdir():
            (folder / path.name).symlink_to(path)
        scan = folder / "sub-01_FLAIR.nii.gz"
        image = stored_otherwise(small_demo.patient(), scan)
        brain = (np.asarray(image.dataobj) > 0).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(brain, image.affine), folder / "mask.nii.gz")
        lesion, middle = np.zeros_like(brain), [size // 2 for size in brain.shape]
        lesion[tuple(slice(place - 3, place + 3) for place in middle)] = 1
        nibabel.save(nibabel.Nifti1Image(lesion, image.affine), folder / "lesion.nii.gz")
        (folder / "folder_of_scans").mkdir()
        shutil.copy(scan, folder / "folder_of_scans" / "sub-02_FLAIR.nii.gz")
        as_bids(scan, folder)
        volume = nibabel.load(scan)
        Maker(np.asarray(volume.dataobj).astype(np.uint16), volume.affine).write(folder / "dicom_folder")
        _results_of_others(Manifest.read(small_demo.folder / "cohort" / "manifest.tsv"), folder)

    return once("newcomer", make)


def _results_of_others(manifest: Manifest, folder: Path) -> None:
    """Write what `evaluate` compares: true masks, shifted masks, smooth maps, and brains."""
    for record in manifest:
        if record.lesion is None:
            continue
        lesion = nibabel.load(record.lesion)
        values = np.asarray(lesion.dataobj)
        parts = {
            "truth": values,
            "masks": np.roll(values, 1, axis=0),
            "maps": ndimage.gaussian_filter(values.astype(np.float32), 1.5),
            "brains": np.asarray(nibabel.load(record.image).dataobj) > 0,
        }
        for name, data in parts.items():
            (folder / name).mkdir(exist_ok=True)
            image = nibabel.Nifti1Image(data.astype(np.float32 if name == "maps" else np.uint8), lesion.affine)
            nibabel.save(image, folder / name / f"sub-{record.subject}_{name}.nii.gz")


@pytest.fixture
def newcomer(newcomer_files: Path, tmp_path: Path) -> Path:
    """A folder of one's own with these files."""
    folder = tmp_path / "newcomer"
    shutil.copytree(newcomer_files, folder, symlinks=True, copy_function=_link_large)
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks")
    return folder


def _link_large(source: str, target: str) -> None:
    """Share the data of images and weights, which no command writes into; copy tables and logs, which grow in place."""
    if source.endswith((".nii.gz", ".safetensors", ".zip", ".png", ".npy", ".dcm")):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


@pytest.fixture
def environment(newcomer: Path, programs: Path) -> dict[str, str]:
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "HALEBRAIN_HOME": str(newcomer / "home"), "MPLBACKEND": "agg"}


@pytest.mark.parametrize(("kind", "block"), BLOCKS)
def test_the_commands_of_the_documents_work_as_written(
    newcomer: Path, environment: dict[str, str], request: pytest.FixtureRequest, kind: str, block: str
) -> None:
    if "HALEBRAIN_TEST_DATA" in block:
        environment["HALEBRAIN_TEST_DATA"] = str(request.getfixturevalue("real_data"))
    # The published networks need a GPU; everything else runs as it stands.
    quick = block.replace("-c paper", "-c tiny")
    run = ["bash", "-euo", "pipefail", "-c", quick] if kind == "sh" else ["bash", "-c", 'python -c "$0"', quick]
    done = subprocess.run(run, cwd=newcomer, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_notebook_of_the_tour_runs_as_it_stands(newcomer: Path, environment: dict[str, str]) -> None:
    cells = json.loads((ROOT / "docs" / "get-started" / "tour.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    run = ["bash", "-c", 'python -c "$0"', code]
    done = subprocess.run(run, cwd=newcomer, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Research use only" in done.stdout
    assert (newcomer / "tour_mask.nii.gz").is_file()
