"""The wheel holds the package whole: code, configurations, templates and the models that come with it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from halebrain.models import store
from halebrain.models.bundle import load_bundle

ROOT = Path(__file__).parents[1]


@pytest.fixture
def wheel(tmp_path, small_model):
    """Build the wheel of this tree with a stand-in model, under the same ignore file."""
    tree = tmp_path / "tree"
    (tree / "src").mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tree / name)
    ignored = shutil.ignore_patterns("__pycache__", "weights")
    shutil.copytree(ROOT / "src" / "halebrain", tree / "src" / "halebrain", ignore=ignored)
    store.export_model(small_model, tree / "src" / "halebrain" / "weights" / "general.zip")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=tree, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return tmp_path / done.stdout.split()[-1]


def test_the_wheel_holds_the_models_and_whatever_else_the_package_reads(wheel, small_model, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        archive.extract("halebrain/weights/general.zip", tmp_path / "unpacked")
    packed = tmp_path / "unpacked" / "halebrain" / "weights" / "general.zip"
    assert load_bundle(packed).sha256 == load_bundle(small_model).sha256
    package = ROOT / "src" / "halebrain"
    files = {p for p in package.rglob("*") if p.is_file() and not {"__pycache__", "weights"} & set(p.parts)}
    assert {f"halebrain/{p.relative_to(package).as_posix()}" for p in files} <= held
    assert not {name for name in held if name.startswith(("tests/", "benchmarks/"))}
