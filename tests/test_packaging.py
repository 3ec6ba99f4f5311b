"""Wheel and sdist hold the package whole: code, configurations, templates and the models that come with it."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from halebrain.models import store
from halebrain.models.bundle import load_bundle

ROOT = Path(__file__).parents[1]
BESIDE = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt")
"""What lies beside the sources in an sdist."""


def build(kind, tree, folder):
    """Build a "wheel" or an "sdist" of a tree into a folder; return the file."""
    code = f"import sys; from hatchling.build import build_{kind}; print(build_{kind}(sys.argv[1]))"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=tree, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / done.stdout.split()[-1]


@pytest.fixture
def tree(tmp_path, small_model):
    """Copy the repository with a stand-in model, under the same ignore file, with a cache and a test in it."""
    tree = tmp_path / "tree"
    (tree / "src").mkdir(parents=True)
    for name in (*BESIDE, ".gitignore"):
        shutil.copy(ROOT / name, tree / name)
    ignored = shutil.ignore_patterns("__pycache__", "weights")
    package = tree / "src" / "halebrain"
    shutil.copytree(ROOT / "src" / "halebrain", package, ignore=ignored)
    store.export_model(small_model, package / "weights" / "general.zip")
    for name in ("tests/test_one.py", "src/halebrain/__pycache__/api.cpython-311.pyc"):
        (tree / name).parent.mkdir()
        (tree / name).write_text("")
    return tree


@pytest.fixture
def wheel(tree, tmp_path):
    """Build the wheel."""
    return build("wheel", tree, tmp_path)


def held_by(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_models_and_whatever_else_the_package_reads(wheel, small_model, tmp_path):
    held = held_by(wheel)
    with zipfile.ZipFile(wheel) as archive:
        archive.extract("halebrain/weights/general.zip", tmp_path / "unpacked")
    packed = tmp_path / "unpacked" / "halebrain" / "weights" / "general.zip"
    assert load_bundle(packed).sha256 == load_bundle(small_model).sha256
    package = ROOT / "src" / "halebrain"
    files = {p for p in package.rglob("*") if p.is_file() and not {"__pycache__", "weights"} & set(p.parts)}
    assert {f"halebrain/{p.relative_to(package).as_posix()}" for p in files} <= held
    assert {name.split("/")[0] for name in held} == {
        "halebrain",
        wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info",
    }
    assert not {name for name in held if "__pycache__" in name}


@pytest.mark.slow
def test_the_wheel_of_an_sdist_is_that_of_the_repository(tree, wheel, tmp_path):
    sdist = build("sdist", tree, tmp_path)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (inner,) = (tmp_path / "unpacked").iterdir()
    held = {path.relative_to(inner).as_posix() for path in inner.rglob("*") if path.is_file()}
    assert {name for name in held if not name.startswith("src/halebrain/")} == {*BESIDE, ".gitignore", "PKG-INFO"}
    assert not {name for name in held if "__pycache__" in name}
    (tmp_path / "again").mkdir()
    again = build("wheel", inner, tmp_path / "again")
    assert held_by(again) == held_by(wheel)
