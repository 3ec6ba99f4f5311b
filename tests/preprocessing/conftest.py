"""Stand-ins for the tools that a user may have, and a machine that has none of its own."""

import stat
import sys

import numpy as np
import pytest

from halebrain.core.types import Volume
from halebrain.preprocessing.brain import deepbet


@pytest.fixture(autouse=True)
def tools(monkeypatch, tmp_path):
    """A machine without brain extractors; return what puts a Python script on its PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HALEBRAIN_BRAIN_DEVICE", "cpu")
    for name in ("HALEBRAIN_HOME", *(f"HALEBRAIN_{tool}_WEIGHTS" for tool in ("HDBET", "SYNTHSTRIP", "DEEPBET"))):
        monkeypatch.delenv(name, raising=False)
    # Nor the distribution, which may be installed here.
    monkeypatch.setattr(deepbet, "DISTRIBUTION", "no-such-distribution-of-deepbet")

    def install(name, script):
        path = folder / name
        path.write_text(f"#!{sys.executable}\nimport os, sys\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return install


@pytest.fixture
def oblique(rng):
    """A bright ellipsoid of 1.2 litres in noise, on an anisotropic oblique grid with flipped axes, and where it is."""
    turn = np.array([[0.0, -1, 0], [np.cos(0.3), 0, np.sin(0.3)], [np.sin(0.3), 0, -np.cos(0.3)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([2.0, 3.0, 4.0])
    shape = (100, 60, 50)
    middle = np.array([48.0, 30.0, 24.0])
    affine[:3, 3] = -affine[:3, :3] @ middle
    place = (np.indices(shape).reshape(3, -1).T - middle) * [2, 3, 4]
    brain = (((place / [75, 60, 65]) ** 2).sum(axis=1) < 1).reshape(shape)
    data = 100.0 * brain + np.abs(rng.normal(0, 5, shape))
    return Volume(data.astype(np.float32), affine, name="head.nii.gz"), brain
