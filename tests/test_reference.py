"""What is written from the code (`make reference`) says what the code says now."""

from typing import Literal

import pytest
from pydantic import Field, NonNegativeFloat
from tools.command_line import read_commands
from tools.commands_page import usage
from tools.configuration_page import args_of, settings_table, value_text
from tools.markdown import escape, table
from tools.reference import FILES, ROOT

from halebrain.core.config import Config
from halebrain.training.segmenter_config import SegmenterTraining


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_what_the_code_says_whatever_the_machine(name, tmp_path, monkeypatch):
    for variable in ("HOME", "HALEBRAIN_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("COLUMNS", "40")
    written = (ROOT / name).read_text(encoding="utf-8") if (ROOT / name).exists() else ""
    if written != FILES[name]():
        pytest.fail(f"{name} is not what the code says now: make reference", pytrace=False)


def test_a_usage_names_what_must_be_given():
    said = {command.name: usage(command) for command in read_commands()}
    assert said["halebrain detect"] == "halebrain detect -i PATH -o PATH [OPTIONS]"
    assert said["halebrain bids"] == "halebrain bids [OPTIONS] BIDS_DIR OUT_DIR LEVEL"
    assert said["halebrain models"] == "halebrain models COMMAND"


def test_a_section_has_the_defaults_of_the_class_that_holds_it():
    rows = {line.split(" | ")[0]: line for line in settings_table(SegmenterTraining).splitlines()}
    assert "| `5.0e-05` |" in rows["| `loop.lr`"]
    assert "| section or none | `null` |" in rows["| `pairs`"]
    assert "| integer ≥ 1 | `24` |" in rows["| `pairs.annotated`"]


def test_a_setting_without_a_description_is_refused():
    class Undescribed(Config):
        """Nothing is said of its key."""

        steps: int = 1

    with pytest.raises(LookupError, match=r"Undescribed\.steps"):
        settings_table(Undescribed)


def test_descriptions_are_read_from_the_docstring():
    doc = (
        "A thing.\n\nArgs:\n    first: One line.\n    second: Two\n        lines: all.\n\nRaises:\n    KeyError: No.\n"
    )
    assert args_of(doc) == {"first": "One line.", "second": "Two lines: all."}


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (int, "integer"),
        (Literal["a", "b"], "`a`, `b`"),
        (str | None, "text or none"),
        (tuple[int, int, int], "integer (list of 3)"),
        (tuple[NonNegativeFloat, ...], "number ≥ 0 (list)"),
        (dict[str, tuple[float, float]], "number (list of 2), for each name"),
    ],
)
def test_types_are_told_in_words(annotation, said):
    assert value_text(annotation) == said


class Ranged(Config):
    """One key with a range.

    Args:
        share: A share.
    """

    share: float = Field(ge=0, lt=1)


def test_a_range_is_told():
    assert "| `share` | number ≥ 0, &lt; 1 | required | A share. |" in settings_table(Ranged)


def test_a_table_shows_marks_as_they_are():
    assert escape("|x| < 1, `a<b` and * are\n{shown}") == r"\|x\| &lt; 1, `a<b` and \* are &#123;shown}"
    assert table(("A", "B"), [("1", "")]) == "| A | B |\n| --- | --- |\n| 1 | |"
    with pytest.raises(ValueError, match="bar"):
        escape("`a|b`")
