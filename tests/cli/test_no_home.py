"""Containers and services: a user without a home folder, or with one that cannot be written or looked into."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from halebrain.core.home import VARIABLE, halebrain_home, is_writable
from halebrain.models.store import stored_models
from halebrain.preprocessing.brain import hdbet, synthstrip
from halebrain.workflows.doctor import examine


@pytest.fixture
def homeless(bundled, monkeypatch):
    """No `HOME`, and a user whom the table of users does not know; one model is bundled."""
    for name in ("HOME", VARIABLE, synthstrip.WEIGHTS_VARIABLE, hdbet.WEIGHTS_VARIABLE):
        monkeypatch.delenv(name, raising=False)

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    return bundled


def test_without_a_home_bundled_models_work_and_no_weights_are_looked_for(homeless):
    assert halebrain_home() is None
    assert [(model.name, model.origin) for model in stored_models()] == [("general", "bundled")]
    assert synthstrip.find_weights() is None
    assert examine()["home"]["folder"] == f"none: set {VARIABLE}"


@pytest.mark.slow
def test_without_a_home_a_scan_is_looked_at(homeless, command, small_cohort, tmp_path):
    scan = small_cohort([("a", "FLAIR", "val", "ms")]).parent / "sub-a_FLAIR.nii.gz"
    look = ("detect", "-i", scan, "-o", tmp_path / "out", "--threshold", "0.05", "--no-progress")
    code, said = command(*look)
    assert code == 0, said.err
    assert list((tmp_path / "out").glob("*_provenance.json"))


def test_without_a_home_an_import_says_which_variable_to_set(homeless, command, small_model, tmp_path, monkeypatch):
    code, said = command("models", "import", small_model, "--name", "mine")
    assert code == 69
    assert len(said.err.splitlines()) == 1
    assert said.err.endswith(f"set the environment variable {VARIABLE} to a folder\n")
    monkeypatch.setenv(VARIABLE, "~/models")
    code, said = command("models", "list")
    assert code == 78
    assert VARIABLE in said.err
    monkeypatch.setenv(VARIABLE, str(tmp_path / "named"))
    assert command("models", "import", small_model, "--name", "mine")[0] == 0
    assert (tmp_path / "named" / "models" / "mine.zip").is_file()


def test_what_lies_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert is_writable(tmp_path / "new" / "folder")
    assert not is_writable(tmp_path / "file" / "folder")


def test_a_home_that_cannot_be_written_names_the_variable(command, small_model, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))
    code, said = command("models", "import", small_model, "--name", "mine")
    assert code == 73
    assert len(said.err.splitlines()) == 1
    assert f"set the environment variable {VARIABLE}" in said.err


DRAW = """
import logging, os, sys
logging.basicConfig(stream=sys.stdout)
from halebrain.report.figures import save_figure
import matplotlib
print(matplotlib.get_configdir(), matplotlib.get_cachedir())
"""


@pytest.mark.slow
def test_matplotlib_makes_no_noise_and_leaves_nothing(tmp_path):
    (tmp_path / "a file").write_text("")
    (tmp_path / "temporary").mkdir()
    # A home below a file can be written by nobody, the administrator included.
    variables = {**os.environ, "HOME": str(tmp_path / "a file" / "home"), "TMPDIR": str(tmp_path / "temporary")}
    for name in ("MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        variables.pop(name, None)
    done = subprocess.run([sys.executable, "-c", DRAW], env=variables, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    settings, fonts = line.split()
    assert settings == fonts
    assert Path(settings).parent == tmp_path / "temporary"
    assert list((tmp_path / "temporary").iterdir()) == []
