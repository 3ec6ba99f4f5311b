"""What the shell offers at a tab, in a process of its own as the shell starts it."""

import os
import subprocess
import sys

import pytest

from halebrain.workflows.settings import BRAINS, PATHOLOGIES, SOURCES

HEAVY = ("torch", "numpy", "scipy", "nibabel", "SimpleITK", "nilearn", "matplotlib", "lightning_fabric")
CODE = f"""
import atexit, sys
atexit.register(lambda: sys.stderr.write(repr([name for name in {HEAVY!r} if name in sys.modules])))
sys.argv[0] = "halebrain"
from halebrain.cli.main import main
main()
"""


@pytest.fixture
def shell(tmp_path):
    """Run the command in an empty home with further variables; return what it printed."""
    (tmp_path / "home" / "models").mkdir(parents=True)
    (tmp_path / "home" / "models" / "mine.zip").touch()

    def run(*arguments, **variables):
        environment = {"HOME": str(tmp_path), "HALEBRAIN_HOME": str(tmp_path / "home")}
        environment |= {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ} | variables
        call = [sys.executable, "-c", CODE, *arguments]
        done = subprocess.run(call, env=environment, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr.endswith("[]"), "a heavy library was loaded"
        return done.stdout

    return run


@pytest.fixture
def offered(shell):
    def complete(typed):
        words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1)}
        return shell(_HALEBRAIN_COMPLETE="complete_bash", **words).split()

    return complete


@pytest.mark.parametrize(
    ("typed", "known"),
    [
        ("halebrain det", ["detect"]),
        ("halebrain detect -m mi", ["mine"]),
        ("halebrain models info m", ["mine"]),
        ("halebrain detect --modality T", ["T1w", "T2w", "T1ce"]),
        ("halebrain train segmenter -c p", ["paper", "paper3"]),
        ("halebrain prepare -c p", ["paper"]),
        (
            "halebrain benchmark -c ",
            ["cpu", "cpu2", "cpu2_flair", "cpu2_flair_dae", "gpu", "healing", "later", "paper", "paper_more", "tiny"],
        ),
        ("halebrain cohort --pathology tu", ["tumour"]),
        ("halebrain detect -i some", []),
    ],
)
def test_names_are_offered_and_nothing_heavy_is_loaded(offered, typed, known):
    assert offered(typed) == known


@pytest.mark.parametrize("shown", ["bash", "zsh", "fish"])
def test_the_script_is_shown(shell, shown):
    assert "_HALEBRAIN_COMPLETE" in shell(_HALEBRAIN_COMPLETE=f"source_{shown}")
    script = shell("--show-completion", shown, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert f"complete_{shown}" in script


def test_it_is_installed_for_a_shell(shell, tmp_path):
    shell("--install-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "halebrain" in (tmp_path / ".bashrc").read_text()
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert "complete_bash" in script.read_text()


def test_the_words_are_those_that_the_package_knows():
    from halebrain.data.datasets import SOURCES as LAYOUTS
    from halebrain.preprocessing.brain import BRAIN_EXTRACTORS
    from halebrain.simulation.pathology import PATHOLOGIES as DISEASES

    assert set(PATHOLOGIES) == set(DISEASES.names())
    assert set(SOURCES) == set(LAYOUTS.names())
    assert {*BRAINS, "none"} == set(BRAIN_EXTRACTORS.names())
