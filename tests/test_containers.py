"""The recipes of container images: nobody builds them here, so what can be checked without building is."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

import halebrain
from halebrain.cli.main import app

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "Dockerfile"
APPTAINER = ROOT / "apptainer.def"


def instructions():
    """Return the instructions of the Dockerfile, each a name and the rest of its lines."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line]


def sections():
    """Return the sections of the Apptainer definition by name, "" = its header."""
    text = re.sub(r"^\s*#.*\n", "", APPTAINER.read_text(encoding="utf-8"), flags=re.MULTILINE)
    header, *rest = re.split(r"^%(\w+)\n", text, flags=re.MULTILINE)
    return {"": header, **dict(zip(rest[::2], rest[1::2], strict=True))}


def test_hadolint_finds_nothing():
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed: pip install -e '.[dev]'")
    done = subprocess.run([program, "--no-color", str(DOCKERFILE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_images_copy_is_there_and_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [words for name, words in instructions() if name == "COPY" and not words.startswith("--from")]
    sources = {source for words in copied for source in words.split()[:-1]}
    assert {line.split()[0] for line in sections()["files"].splitlines() if line} == sources
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == sources
    assert all((ROOT / source).exists() for source in sources)


def test_both_run_the_bids_app_and_have_its_version():
    docker = instructions()
    (entrypoint,) = (json.loads(words) for name, words in docker if name == "ENTRYPOINT")
    assert entrypoint == ["halebrain", "bids"]
    assert entrypoint[1] in typer.main.get_command(app).commands
    assert sections()["runscript"].strip() == 'exec halebrain bids "$@"'
    (labels,) = (words for name, words in docker if name == "LABEL")
    for text, pattern in ((labels, r'image\.version="([^"]+)"'), (sections()["labels"], r"image\.version (\S+)")):
        assert re.findall(pattern, text) == [halebrain.__version__]


def test_nobody_is_root_and_both_start_from_the_same_image():
    docker = instructions()
    names = [name for name, _ in docker]
    assert next(words for name, words in docker if name == "USER") not in ("root", "0")
    assert names.index("USER") < names.index("ENTRYPOINT")
    bases = {words.split()[0] for name, words in docker if name == "FROM"}
    assert bases == {re.search(r"^From: (\S+)$", sections()[""], re.MULTILINE)[1]}
    assert re.fullmatch(r"python:3\.1[1-9]-slim", *bases)


def test_torch_is_constrained_and_comes_from_the_index_for_cpus():
    builds = [words for name, words in instructions() if name == "RUN" and "pip" in words] + [sections()["post"]]
    for text in builds:
        calls = re.findall(r"pip install (.*?)(?:&&|\n|$)", re.sub(r"\\\n\s*", " ", text))
        assert len(calls) == 2
        assert all("--constraint constraints.txt" in call for call in calls)
        assert calls[0].rstrip().endswith("torch")
        assert "--index-url" in calls[0]
    (index,) = (words for name, words in instructions() if name == "ARG")
    assert index.removeprefix("TORCH_INDEX=") in sections()["post"]


def test_continuous_integration_runs_what_a_contributor_runs():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert set(workflow[True]) == {"push", "pull_request"}  # `on` is a word for true in YAML 1.1
    (job,) = workflow["jobs"].values()
    assert job["runs-on"].startswith("ubuntu-")
    python = next(step["with"] for step in job["steps"] if "setup-python" in step.get("uses", ""))
    assert (python["python-version"], python["cache"]) == ("3.11", "pip")
    assert all((ROOT / path).is_file() for path in python["cache-dependency-path"].split())
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
