"""The words of the package and its documents: plain, short, and with the terms of the field."""

import ast
import io
import re
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
ROOTS = ("src/halebrain", "tools", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "pyproject.toml")
"""Files and folders that are checked."""
ENDINGS = {".py", ".md", ".yaml", ".j2", ".js", ".css", ".toml"}
VOXELS = r"(?:voxels?|pixels?|lesions?|anomal(?:y|ies|ous)|positives?|findings?)"


class Idiom(NamedTuple):
    """Words to avoid.

    Args:
        pattern: A regular expression; a space stands for any white space, and case does not matter.
        instead: What to write.
        example: A sentence with the idiom.
    """

    pattern: str
    instead: str
    example: str


IDIOMS = (
    Idiom(r"\bin vain\b", "false positive, false-positive volume", "The healthy scan shows 1 ml in vain."),
    Idiom(r"\banew\b", "again", "The model is calibrated anew."),
    Idiom(r"\bhang(?:s|ing)? on\b", "depends on", "The result hangs on the seed."),
    Idiom(rf"\bcall(?:s|ed|ing)? (?:\w+ )?{VOXELS}\b", "marks, marked, predicted", "The network calls a voxel."),
    Idiom(r"\bcall(?:s|ed)? (?:it|them) (?:an? )?(?:lesion|abnormal|anomal|healthy)", "marks", "It calls it a lesion."),
    Idiom(rf"\b{VOXELS} (?:(?:that|which) )?(?:is|are|was|were) called\b", "marked", "Every voxel that is called."),
    Idiom(r"\bvolume called (?!['\"`“])", "volume marked", "The volume called outside any lesion."),
    Idiom(r"\b(?:made|drawn|drew|prepared|written) otherwise\b", "with other settings", "Results made otherwise."),
    Idiom(r"\bin earnest\b", "at full size", "Now train in earnest."),
    Idiom(r"\bof (?:its|their|our|my|your|his|her|one's) own\b", "its own …", "Each scan has a record of its own."),
    Idiom(r"\bodd (?:ones?|scans?)\b", "outliers", "The page shows the odd ones first."),
    Idiom(r"\babout where\b", "approximate region", "The table says about where each finding lies."),
    Idiom(r"\b(?:goes|go|went) before\b", "takes precedence over", "A path goes before a name."),
    Idiom(r"\b(?:goes|go|went) by\b", "uses, depends on", "Thresholds go by the contrast."),
    Idiom(r"\bmust beat\b", "baseline", "This is what it must beat."),
    Idiom(r"\bmend(?:s|ed|ing)?\b", "fix", "Mend what each line says."),
    Idiom(
        r"\b(?:connected|smaller|smallest|larger|largest|lesion) pieces?\b"
        r"|\bpieces? (?:of the (?:mask|lesion)|under|below|smaller|of at least|of \d)",
        "connected components, findings",
        "Pieces smaller than 10 mm³ are dropped.",
    ),
    Idiom(r"\bturn(?:s|ed|ing)? (?:the \w+ |it )?over\b", "inverted", "The scan is turned over."),
    Idiom(r"\bhow far .{0,30}\btrust(?:ed)?\b", "reliability, quality flags", "It says how far to trust it."),
    Idiom(r"\b(?:said|seen) (?:modality|contrast)\b", "declared / inferred contrast", "The seen contrast differs."),
    Idiom(r"\blooked at\b", "processed, checked", "Two scans were looked at."),
    Idiom(r"\b(?:is|are|was|were|be) (?:not )?told (?!apart)", "is given, is reported", "The model is told of it."),
    Idiom(
        r"\b(?:that|which|it|who|network|reconstructor|model) heals\b", "is trained with anomalies", "One that heals."
    ),
    Idiom(
        r"\b(?:stays?|keeps?|kept|left|leaves?|takes?|taken|remains?|gives?) (?:\w+ ){0,2}as (?:it is|they are)\b",
        "unchanged",
        "The segmenter stays as it is.",
    ),
    Idiom(r"\b(?:what|those that) lacks?\b(?! \w)", "missing …", "The command makes those that lack."),
    Idiom(
        r"\b(?:what nobody|nobody (?:fore)?saw|somebody should|nobody waits)\b", "a fact", "It keeps what nobody saw."
    ),
    Idiom(
        r"\bthe (?:model|network|segmenter|reconstructor)s? (?:says?|thinks?|believes?|knows?|calls?)\b",
        "a fact without a personified noun",
        "The model says nothing of it.",
    ),
    Idiom(r"\bfrom nothing\b", "from scratch", "The encoder is trained from nothing."),
    Idiom(r"\bthe very (?:same|set|test|grid|scans?|mask)\b|\bthis very\b", "the same, this", "On this very scan."),
    Idiom(r"\bflatter(?:s|ed)?\b", "too good", "Such figures flatter the model."),
    Idiom(r"\bwhoever\b", "anyone who, users", "For whoever has the weights."),
    Idiom(r"\bat hand\b", "available", "The best extractor at hand."),
    Idiom(r"\bnow and then\b", "sometimes", "It fails now and then."),
    Idiom(r"\bin silence\b", "silently", "No scan is dropped in silence."),
    Idiom(r"\bbirth certificate\b", "provenance", "Thresholds with a birth certificate."),
    Idiom(r"\bfloor \d\b|\blower floors?\b", "layer", "Floor 3: data."),
    Idiom(r"\bmean nothing\b|\bworth nothing\b", "not valid, not meaningful", "The maps mean nothing."),
    Idiom(
        r"\bthe same command (?:then |also )?(?:goes on|looks|prepares|makes)\b",
        "run it again; it resumes",
        "The same command goes on.",
    ),
    Idiom(r"\bPython face\b", "Python API", "The Python face of the package."),
    Idiom(r"\bsomething (?:was noticed|to look at)\b", "quality flags", "Two with something to look at."),
    Idiom(r"\bas the image shows\b", "inferred from the image", "The contrast, as the image shows."),
    Idiom(r"\bSeed of everything\b", "random seed", "Seed of everything that is drawn."),
)
LEGITIMATE = (
    "The function is called once for each scan, and calls the network.",
    "A volume called 'regions' holds the codes; the section called `data` names the manifest.",
    "A piece of code that reads one piece of a path. Each piece is joined with a slash.",
    "Recommended settings are amended below. The file is kept, as it is small.",
    "The scan goes to the working grid before the networks run, and every scan is processed.",
    "Runs of other settings are not resumed; contrasts cannot be told apart. Its own record is kept.",
    "With `heals`, the reconstructor is trained on slices with synthetic anomalies.",
)


class Text(NamedTuple):
    """Some words and the line at which they begin."""

    line: int
    words: str


def python_texts(source: str) -> Iterator[Text]:
    """Yield the string literals, docstrings and comments of a module; the values in an f-string become "{}"."""
    tree = ast.parse(source)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in node.values]
            yield Text(node.lineno, "".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield Text(node.lineno, node.value)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Text(token.start[0], token.string)


def texts(path: Path) -> Iterator[Text]:
    """Yield the words of a file that somebody reads."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from python_texts(source)
    elif path.suffix == ".toml":
        yield Text(1, tomllib.loads(source)["project"]["description"])
    else:
        yield Text(1, source)


def idioms(text: Text) -> Iterator[str]:
    """Yield a line for each idiom in a text: its line, what was found, and what to write instead."""
    for idiom in IDIOMS:
        for found in re.finditer(idiom.pattern.replace(" ", r"\s+"), text.words, flags=re.IGNORECASE):
            line = text.line + text.words.count("\n", 0, found.start())
            yield f"{line}: '{' '.join(found[0].split())}', write instead: {idiom.instead}"


def checked_files() -> list[Path]:
    """Return every file with text below `ROOTS`."""
    roots = [ROOT / name for name in ROOTS]
    files = [path for root in roots for path in (sorted(root.rglob("*")) if root.is_dir() else [root])]
    return [path for path in files if path.suffix in ENDINGS]


@pytest.mark.parametrize("path", checked_files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_words_are_plain(path):
    name = path.relative_to(ROOT).as_posix()
    assert [f"{name}:{found}" for text in texts(path) for found in idioms(text)] == []


def test_the_lists_name_files_that_exist():
    assert [name for name in ROOTS if not (ROOT / name).exists()] == []
    assert {path.suffix for path in checked_files()} == ENDINGS


@pytest.mark.parametrize("idiom", IDIOMS, ids=lambda idiom: idiom.example)
def test_every_idiom_is_found(idiom):
    assert any(found.endswith(idiom.instead) for found in idioms(Text(1, idiom.example)))


@pytest.mark.parametrize("sentence", LEGITIMATE)
def test_other_uses_of_the_same_words_are_not(sentence):
    assert list(idioms(Text(1, sentence))) == []


def test_every_kind_of_text_in_a_module_is_read():
    source = '''"""Mend
it."""
# anew
MESSAGE = "in " "vain"
LINE = f"{MESSAGE} hangs on {MESSAGE!r}"
'''
    found = sorted(line for text in python_texts(source) for line in idioms(text))
    assert [line.split(",")[0] for line in found] == ["1: 'Mend'", "3: 'anew'", "4: 'in vain'", "5: 'hangs on'"]


def test_an_idiom_over_two_lines_is_found_at_its_own_line():
    assert list(idioms(Text(3, "One line.\nThe result hangs\non the seed."))) == [
        "4: 'hangs on', write instead: depends on"
    ]
