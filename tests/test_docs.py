"""The documentation: every page is listed, every link leads somewhere, and what cannot be run is checked."""

import ast
import contextlib
import importlib
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
import yaml
from benchmarks.screenshots import PICTURES

from halebrain.cli.main import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
ALL = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *PAGES]
ELSEWHERE = {"changelog.md", "contributing.md"}
"""Pages that the site shows from the root of the repository."""
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"```(\w*)\n(.*?)```", flags=re.DOTALL)


def listed(nav):
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from listed(value) if isinstance(value, list) else [value]


def text_of(page):
    """Return the text of a page without its code, in which brackets mean something else."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))


def anchors(page):
    """Return the anchors of the headings of a page, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()) for heading in headings]
    return {re.sub(r"[ ]+", "-", heading.strip()) for heading in plain}


def test_the_site_lists_every_page():
    pages = list(listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert len(pages) == len(set(pages))
    assert set(pages) == {page.relative_to(DOCS).as_posix() for page in PAGES} | ELSEWHERE
    for name in ELSEWHERE:
        assert name.removesuffix(".md").upper() in (DOCS / "hooks.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for link in LINK.findall(text_of(page)):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_picture_is_shown():
    used = {Path(link).name for page in ALL for link in LINK.findall(text_of(page))}
    assert {path.name for path in (DOCS / "images").iterdir()} <= used


def test_every_picture_can_be_made_again():
    assert set(PICTURES) == {p.name for p in (DOCS / "images").iterdir() if not p.name.startswith("matrix_")}


@pytest.mark.parametrize(
    "name", re.findall(r"^::: (\S+)$", (DOCS / "reference" / "python-api.md").read_text(encoding="utf-8"), re.MULTILINE)
)
def test_the_reference_names_what_is_there(name):
    found, parts = importlib.import_module("halebrain"), name.split(".")[1:]
    for place, part in enumerate(parts, start=2):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(".".join(name.split(".")[:place]))
        found = getattr(found, part)
    assert found.__doc__


def test_the_site_fetches_nothing():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert config["theme"]["font"] is False
    said = (ROOT / "mkdocs.yml").read_text(encoding="utf-8") + (DOCS / "site.css").read_text(encoding="utf-8")
    assert not re.search(r"https?://", said)


def blocks(*kinds):
    found = [(page.stem, kind, text) for page in ALL for kind, text in FENCE.findall(page.read_text(encoding="utf-8"))]
    return [
        pytest.param(text, id=f"{name}: {text.strip().splitlines()[0][:30]}")
        for name, kind, text in found
        if kind in kinds
    ]


def command_lines(script):
    """Yield the words of each call of halebrain in a shell script."""
    for line in script.replace("\\\n", " ").split("\n"):
        words = shlex.split(line, comments=True)
        for place, word in enumerate(words):
            if word == "halebrain" or word.endswith("/halebrain"):
                yield words[place + 1 :]
                break


def check_options(words):
    """Make sure that a command is there and knows the options that it is given."""
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        if words[0].startswith("-"):
            break
        assert words[0] in command.commands, words
        command, words = command.commands[words[0]], words[1:]
    known = {name for param in command.params for name in param.opts} | {"--help", "-h"}
    known |= {"--install-completion", "--show-completion"}
    given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert given <= known, given - known


@pytest.mark.parametrize("script", blocks("bash"))
def test_scripts_that_run_with_stand_ins_are_right_in_every_branch(script):
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for words in command_lines(script):
        check_options(words)


@pytest.mark.slow
@pytest.mark.parametrize("script", blocks("sh"))
def test_scripts_that_are_run_name_options_that_exist(script):
    for words in command_lines(script):
        check_options([word for word in words if word not in ("|", ">")])


@pytest.mark.parametrize("code", blocks("py", "python"))
def test_python_is_python(code):
    ast.parse(code)


def test_a_block_says_what_it_is():
    kinds = {kind for page in ALL for kind, _ in FENCE.findall(page.read_text(encoding="utf-8"))}
    assert kinds <= {"sh", "python", "bash", "py", "text", ""}, (
        "sh and python do their work, bash is run with stand-ins, py on a scheduler of this machine"
    )


def test_the_notebook_is_stripped_and_is_python():
    notebook = json.loads((DOCS / "get-started" / "tour.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            ast.parse("".join(cell["source"]))


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 100
