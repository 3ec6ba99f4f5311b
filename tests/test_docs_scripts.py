"""Scripts of the documents that would take hours, a cluster or the network: run with stand-ins that note their calls.

Blocks marked `sh` and `python` do their work in `test_docs_commands.py`. Here those marked `bash` are run, and that of
`make`: the shell does all it does for a reader, and each program notes its arguments, which are judged afterwards.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from halebrain.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    (page.name, kind, text)
    for page in PAGES
    for kind, text in re.findall(r"```(\w*)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
]
SCRIPTS = [(page, text) for page, kind, text in BLOCKS if kind == "bash" or "make demo" in text]
NOTE = """#!/bin/bash
printf '%q ' "${0##*/}" "$@" >> "$CALLS"
echo >> "$CALLS"
"""
SBATCH = {
    "job-name": r"\w+",
    "array": r"\d+-\d+",
    "cpus-per-task": r"\d+",
    "mem": r"\d+G",
    "time": r"\d\d:\d\d:\d\d",
    "gres": r"gpu:\d+",
    "requeue": "",
    "nodes": r"\d+",
    "ntasks-per-node": r"\d+",
    "gpus-per-node": r"\d+",
}
"""Options of sbatch → what their values look like."""


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], list[list[str]]]:
    """Run a script in a folder as it speaks of, and return the calls that it made, program first."""
    programs, installed = tmp_path / "programs", tmp_path / ".venv" / "bin"
    for folder in (programs, installed):
        folder.mkdir(parents=True)
    more = {"python3": f'exec {shlex.quote(sys.executable)} "$@" --without-pip\n'}
    for path in (*(programs / name for name in JUDGES), installed / "halebrain"):
        path.write_text(NOTE + more.get(path.name, ""))
        path.chmod(0o755)

    def go(script: str) -> list[list[str]]:
        environment = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(tmp_path), "CALLS": str(tmp_path / "calls")}
        environment |= {"SLURM_ARRAY_TASK_ID": "2", "LC_ALL": os.environ.get("LC_ALL", "C.UTF-8")}
        own = script.replace("/data/", f"{tmp_path}/data/")
        settings = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "check": False}
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", own], **settings)
        assert done.returncode == 0, done.stderr
        return [shlex.split(line) for line in (tmp_path / "calls").read_text(encoding="utf-8").splitlines()]

    return go


def judge_halebrain(words: list[str]) -> None:
    """Read the words as the program does: a command, option or value that it does not take is an error."""
    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    if words != ["--help"]:
        assert not hasattr(command, "commands"), words
        given = command.make_context("halebrain", list(words)).params
        if command.name in ("reconstructor", "segmenter"):
            judge_training(command.name, given)


def judge_training(stage: str, given: dict[str, Any]) -> None:
    """Read the settings as a training does: a key or value that it does not know is an error."""
    from halebrain.core.config import load_config
    from halebrain.core.shipped_configs import find_config
    from halebrain.training.reconstructor import ReconstructorTraining
    from halebrain.training.segmenter_config import SegmenterTraining

    kind = ReconstructorTraining if stage == "reconstructor" else SegmenterTraining
    settings = load_config(kind, find_config(given["config"], stage), [*(given["overrides"] or ())])
    assert given["manifest"] is not None
    assert settings.loop.micro_batches % (given["devices"] * given["nodes"]) == 0


def judge_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert words
    for target in words:
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target


def judge_pip(words: list[str]) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("action", choices=["install", "download", "wheel"])
    for option in ("--constraint", "--dest", "--find-links", "--wheel-dir", "--extra-index-url"):
        parser.add_argument(option, type=Path)
    parser.add_argument("--no-deps", action="store_true")
    parser.add_argument("--no-index", action="store_true")
    parser.add_argument("wanted", nargs="+")
    asked = parser.parse_args(words)
    assert asked.constraint is None or (ROOT / asked.constraint.name).is_file()
    assert asked.no_index == (asked.find_links is not None)
    assert (asked.dest is None) == (asked.action != "download")
    assert (asked.wheel_dir is None) == (asked.action != "wheel")
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = (*about["project"]["dependencies"], *about["build-system"]["requires"], about["project"]["name"])
    assert set(asked.wanted) <= {".", *(re.split(r"[^\w-]", text)[0] for text in needed)}


def judge_python(words: list[str]) -> None:
    assert words == ["-m", "venv", ".venv"]


def judge_pipx(words: list[str]) -> None:
    action, arguments, wheel = words
    assert wheel == WHEEL
    judge_pip([action, *arguments.removeprefix("--pip-args=").split(), "halebrain"])


def judge_uvx(words: list[str]) -> None:
    place = words.index("--from")
    assert words[place + 1] == WHEEL
    options = dict(zip(words[:place:2], words[1:place:2], strict=True))
    assert set(options) == {"--constraints", "--torch-backend"}
    assert (ROOT / options["--constraints"]).is_file()
    assert words[place + 2] == "halebrain"
    judge_halebrain(words[place + 3 :])


def judge_torchrun(words: list[str]) -> None:
    option, count, *start, program = words[:4]
    assert [option, *start, program] == ["--nproc-per-node", "--no-python", "halebrain"]
    assert words[words.index("--devices") + 1] == count
    judge_halebrain(words[4:])


def judge_srun(words: list[str]) -> None:
    program, *words = words
    assert program == "halebrain"
    judge_halebrain(words)


def judge_container(program: str, image: str, recipe: str) -> Callable[[list[str]], None]:
    """Return what judges how an image is built of its recipe, and that what runs in it is our command."""

    def judge(words: list[str]) -> None:
        assert (ROOT / recipe).is_file()
        if words[0] == "build":
            assert words[1:] == {"docker": ["--tag", image, "."], "apptainer": [image, recipe]}[program]
        else:
            assert words[0] == "run"
            judge_halebrain(["bids", *words[words.index(image) + 1 :]])

    return judge


def judge_dask(words: list[str]) -> None:
    """Read the words as Dask does; `test_docs_cluster.py` runs them."""
    cli = pytest.importorskip(f"distributed.cli.dask_{words[0]}")
    cli.main.make_context(words[0], words[1:])


WHEEL = "dist/halebrain-*.whl"
"""As a shell leaves it where there is none."""
JUDGES = {
    "halebrain": judge_halebrain,
    "dask": judge_dask,
    "make": judge_make,
    "pip": judge_pip,
    "python3": judge_python,
    "pipx": judge_pipx,
    "uvx": judge_uvx,
    "torchrun": judge_torchrun,
    "srun": judge_srun,
    "docker": judge_container("docker", "halebrain-bids", "Dockerfile"),
    "apptainer": judge_container("apptainer", "halebrain.sif", "apptainer.def"),
}


@pytest.mark.parametrize(("page", "script"), SCRIPTS, ids=[f"{page}: {text[:30].strip()}" for page, text in SCRIPTS])
def test_scripts_run_and_call_programs_as_these_are_called(
    run: Callable[[str], list[list[str]]], page: str, script: str
) -> None:
    calls = run(script)
    for program, *words in calls:
        assert all(words), "a variable was empty"
        JUDGES[program](words)
    lines = script.replace("\\\n", " ").splitlines()
    begins = [line.split()[0].rpartition("/")[2] for line in lines if line.strip() and not line.startswith("#")]
    assert [program for program, *_ in calls] == [word for word in begins if word in JUDGES]


@pytest.mark.parametrize("script", [text for _, text in SCRIPTS if "#SBATCH --array" in text])
def test_a_task_of_an_array_takes_its_own_part(run: Callable[[str], list[list[str]]], script: str) -> None:
    (words,) = run(script)
    assert words[words.index("--part-id") + 1] == "2"


@pytest.mark.parametrize("script", [text for _, text in SCRIPTS if "#SBATCH" in text])
def test_a_job_asks_for_what_a_scheduler_knows(script: str) -> None:
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, flags=re.MULTILINE))
    assert len(asked) == script.count("#SBATCH")
    for option, value in asked.items():
        assert re.fullmatch(SBATCH[option], value), option
    for option, given in (("ntasks-per-node", "devices"), ("nodes", "nodes")):
        assert option not in asked or f"--{given} {asked[option]}" in script
    if parts := re.search(r"--num-parts (\d+)", script):
        assert asked["array"] == f"0-{int(parts[1]) - 1}"
    threads = re.search(r"--(?:workers|threads) (\d+)", script)
    assert threads is None or asked["cpus-per-task"] == threads[1]


def test_what_is_downloaded_is_where_it_is_installed_from() -> None:
    (script,) = [text for _, text in SCRIPTS if "pip download" in text]
    (dest,), (source,) = (re.findall(rf"{option} (\S+)", script) for option in ("--dest", "--find-links"))
    assert dest == source


def test_torch_is_installed_first() -> None:
    (script,) = [text for _, text in SCRIPTS if "-m venv" in text]
    wanted = [line.split()[-1] for line in script.splitlines() if line.startswith("pip install")]
    assert wanted == ["torch", "."]


def test_no_block_is_left_out() -> None:
    assert not [page for page, kind, _ in BLOCKS if kind == "py"]
    for page, kind, text in BLOCKS:
        if kind in ("text", ""):
            assert not re.search(r"^\s*(\$ |>>> |halebrain |make |pip |python3? )", text, re.MULTILINE), page
