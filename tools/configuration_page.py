"""The page of all settings, `docs/reference/configuration.md`."""

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from math import inf
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from halebrain.adaptation.config import AdaptConfig
from halebrain.benchmarking.config import MatrixConfig
from halebrain.core.config import FORMER_KEYS, Config
from halebrain.core.registry import Registry
from halebrain.core.shipped_configs import shipped_configs
from halebrain.data.anomalies import ANOMALIES, AnomalySpec
from halebrain.data.datasets import SOURCES
from halebrain.inference.anomaly_map import PostprocessingConfig
from halebrain.models.reconstruction import RECONSTRUCTORS, ReconstructorSpec
from halebrain.preprocessing.pipeline import PreprocessingConfig
from halebrain.simulation.config import CohortConfig
from halebrain.training.encoder import EncoderTraining
from halebrain.training.joint import JointTraining
from halebrain.training.reconstructor import ReconstructorTraining
from halebrain.training.segmenter_config import SegmenterTraining
from tools.markdown import NOTICE, code, escape, paragraphs, table


@dataclass(frozen=True)
class Section:
    """A class of settings and where it is given.

    Args:
        title: Its heading.
        given: How a user gives it, Markdown.
        model: The class.
    """

    title: str
    given: str
    model: type[Config]

    @property
    def anchor(self) -> str:
        """Where a link leads to."""
        return "#" + self.title.lower().replace(" ", "-")


RECONSTRUCTOR = Section("Reconstructor training", "`halebrain train reconstructor -c`", ReconstructorTraining)
SEGMENTER = Section("Segmenter training", "`halebrain train segmenter -c`", SegmenterTraining)
JOINT = Section("Joint training", "`halebrain train joint -c`", JointTraining)
ANOMALY_MAP = Section("Anomaly map", "The key `postprocessing` of a training or a benchmark", PostprocessingConfig)
SECTIONS = (
    RECONSTRUCTOR,
    SEGMENTER,
    Section("Encoder training", "`halebrain train encoder -c`", EncoderTraining),
    JOINT,
    Section(
        "Preprocessing", "`halebrain prepare -c`, and the key `data.preprocessing` of a training", PreprocessingConfig
    ),
    ANOMALY_MAP,
    Section("Adaptation", "`halebrain adapt -c`", AdaptConfig),
    Section("Benchmark", "`halebrain benchmark -c`", MatrixConfig),
    Section("Virtual cohort", "Options of `halebrain cohort`, and the key `cohort` of a benchmark", CohortConfig),
)
FAMILIES: dict[str, Registry[Any]] = {
    "Reconstructors": RECONSTRUCTORS,
    "Synthetic anomalies": ANOMALIES,
    "Data set layouts": SOURCES,
}
SEE = {
    (ReconstructorSpec, "settings"): ("the reconstructor of that name", "#reconstructors"),
    (AnomalySpec, "settings"): ("the anomaly of that name", "#synthetic-anomalies"),
    (SegmenterTraining, "postprocessing"): ("keys", ANOMALY_MAP.anchor),
    (JointTraining, "postprocessing"): ("keys", ANOMALY_MAP.anchor),
    (MatrixConfig, "postprocessing"): ("keys", ANOMALY_MAP.anchor),
    (MatrixConfig, "reconstructor_defaults"): ("keys", RECONSTRUCTOR.anchor),
    (MatrixConfig, "segmenter_defaults"): ("keys", SEGMENTER.anchor),
    (MatrixConfig, "joint_defaults"): ("keys", JOINT.anchor),
}
"""Field that takes a mapping → where its keys are listed."""
SHIPPED = {
    "reconstructor": "halebrain train reconstructor",
    "segmenter": "halebrain train segmenter",
    "encoder": "halebrain train encoder",
    "joint": "halebrain train joint",
    "matrix": "halebrain benchmark",
}
"""How the files of a kind begin → the command that takes them."""
_WORDS: dict[Any, str] = {
    bool: "`true` or `false`",
    int: "integer",
    float: "number",
    str: "text",
    Path: "path",
    Any: "any",
    NoneType: "none",
}
_HOW = """\
A configuration file is YAML. `-c FILE` reads it, `-c NAME` reads [a shipped one](#shipped-configurations), and
`--set key=value` changes one key, with dots between the levels (`--set loop.steps=500`). A file with `extends: OTHER`
is laid over that other file. A key that is not given has the default in the table. An unknown key is an error that
names the closest known one. A key given twice is an error too. What the descriptions call `None` is `null` in a
file."""


def configuration_page() -> str:
    """Return the page."""
    parts = ["# Configuration", NOTICE, _HOW, *_shipped()]
    for section in SECTIONS:
        parts += [
            f"## {section.title}",
            f"{section.given}.",
            *paragraphs(_doc(section.model)),
            settings_table(section.model),
        ]
    for title, registry in FAMILIES.items():
        parts += [f"## {title}", _INTRODUCED[title]]
        for name in registry:
            parts += _part(title, name, registry)
    return "\n\n".join(parts) + "\n"


_INTRODUCED = {
    "Reconstructors": "`reconstructor.name` is one of these, `reconstructor.settings` takes its keys.",
    "Synthetic anomalies": "`anomaly.name` is one of these, `anomaly.settings` takes its keys.",
    "Data set layouts": "`halebrain prepare --source NAME` is one of these, `--source-set key=value` takes its keys.",
}
_ONE = {"Reconstructors": "Reconstructor", "Synthetic anomalies": "Anomaly", "Data set layouts": "Layout"}


def _shipped() -> Iterator[str]:
    rows = []
    for kind, command in SHIPPED.items():
        for name, path in shipped_configs(kind).items():
            rows.append((code(f"{command} -c {name}"), _first_sentence(path.read_text(encoding="utf-8"))))
    yield "## Shipped configurations"
    yield "`halebrain prepare -c NAME` takes the preprocessing of the reconstructor training of that name."
    yield table(("Command", "What it is for"), rows)


def _first_sentence(text: str) -> str:
    """Return the first sentence of the comment at the top of a file, without its mention of a page."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("# "):
            break
        lines.append(line.removeprefix("# ").strip())
    comment = re.sub(r" \(docs/[^)]*\)", "", " ".join(lines))
    return escape(re.split(r"(?<=\.) (?=[A-Z])", comment)[0])


def _part(title: str, name: str, registry: Registry[Any]) -> Iterator[str]:
    part = registry.get(name)
    yield f"### {_ONE[title]} {name}"
    # A file that holds several parts describes the family; each class then describes itself.
    alone = [registry.get(other).__module__ for other in registry].count(part.__module__) == 1
    yield from paragraphs(_doc(sys.modules[part.__module__] if alone else part))[:1]
    if isinstance(getattr(part, "layout", None), str):
        yield f"Layout: {escape(part.layout)}."
    if getattr(part, "reference", ""):
        yield escape(part.reference)
    yield settings_table(part.Settings) if part.Settings.model_fields else "It takes no settings."


def settings_table(model: type[Config]) -> str:
    """Return the table of a class of settings, with the sections below it."""
    return table(("Key", "Value", "Default", "Description"), _rows(model, None, ""))


def _rows(
    model: type[Config], given: Config | None, prefix: str, above: tuple[type[Config], ...] = ()
) -> Iterator[Sequence[str]]:
    """Yield a row for each key.

    Args:
        model: The class.
        given: Its values where they differ from its own defaults.
        prefix: The beginning of its keys.
        above: The classes that it is a part of; one that holds its own kind is listed once.
    """
    for name, field in model.model_fields.items():
        key, default = prefix + name, _default(field) if given is None else getattr(given, name)
        inner, way = _section_in(field.annotation)
        is_section = inner is not None and way == "." and isinstance(default, Config)
        shown = "" if is_section else _shown(default)
        yield code(key), value_text(field.annotation, field.metadata), shown, _described(model, name, field)
        if inner is not None and inner not in (*above, model):
            yield from _rows(inner, default if isinstance(default, Config) else None, key + way, (*above, model))


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


def _section_in(annotation: Any) -> tuple[type[Config] | None, str]:
    """Return the class of settings in an annotation, and what leads to its keys; `None` where there is none."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return annotation, "."
    origin, inside = get_origin(annotation), get_args(annotation)
    ways: dict[Any, str] = {dict: ".NAME.", tuple: ".0."}
    for one in inside:
        found, way = _section_in(one)
        if found is not None:
            return found, ways.get(origin, way)
    return None, ""


def _shown(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    text = yaml.safe_dump(_as_yaml(value), default_flow_style=True, width=inf, sort_keys=False, allow_unicode=True)
    return code(text.removesuffix("...\n").strip())


def _as_yaml(value: Any) -> Any:
    if isinstance(value, Config):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _as_yaml(one) for key, one in value.items()}
    return [_as_yaml(one) for one in value] if isinstance(value, tuple | list) else value


def _described(model: type[Config], name: str, field: FieldInfo) -> str:
    said = field.description or _documented(model).get(name, "")
    if not said:
        raise LookupError(f"{model.__name__}.{name} has no description: add it to the docstring, under Args")
    where = SEE.get((model, name))
    former = next((f" Formerly {code(old)}." for old, new in FORMER_KEYS.items() if new == name), "")
    return escape(said) + former + (f" See [{where[0]}]({where[1]})." if where else "")


@cache
def _documented(model: type[Config]) -> dict[str, str]:
    """Return field → description, from the docstrings of a class and of those that it builds on."""
    found: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if isinstance(one, type) and issubclass(one, Config):
            found |= args_of(_doc(one))
    return found


def _doc(one: Any) -> str:
    return inspect.cleandoc(one.__doc__ or "")


def args_of(doc: str) -> dict[str, str]:
    """Return name → description of the section `Args:` of a docstring in Google's style."""
    section = re.search(r"^Args:\n((?:(?: +.*)?\n?)*)", doc, flags=re.MULTILINE)
    if section is None:
        return {}
    entries = re.split(r"^ {4}(\w+): ", section[1], flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in zip(entries[1::2], entries[2::2], strict=True)}


def value_text(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Return what a key takes: its type, with range or choices."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        within = [rule for one in inside[1:] for rule in (one.metadata if isinstance(one, FieldInfo) else [one])]
        return value_text(inside[0], [*metadata, *within])
    if origin is Literal:
        return ", ".join(code(str(one)) for one in inside)
    if origin in (Union, UnionType):
        return " or ".join(value_text(one, () if one is NoneType else metadata) for one in inside)
    if origin is tuple:
        return _list_text(inside)
    if origin is dict:
        return "mapping" if inside[1] is Any else f"{value_text(inside[1])}, for each name"
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return "section"
    return _WORDS[annotation] + _range_text(metadata)


def _list_text(inside: tuple[Any, ...]) -> str:
    words = list(dict.fromkeys(value_text(one) for one in inside if one is not Ellipsis))
    return f"{', '.join(words)} (list)" if Ellipsis in inside else f"{', '.join(words)} (list of {len(inside)})"


def _range_text(metadata: Sequence[Any]) -> str:
    """Return the range of a number.

    Raises:
        TypeError: There is a rule that this page would leave out.
    """
    rules: dict[type, Callable[[Any], str]] = {
        annotated_types.Ge: lambda rule: f"≥ {rule.ge:g}",
        annotated_types.Gt: lambda rule: f"> {rule.gt:g}",
        annotated_types.Le: lambda rule: f"≤ {rule.le:g}",
        annotated_types.Lt: lambda rule: f"&lt; {rule.lt:g}",
        annotated_types.MinLen: lambda _: "not empty",
    }
    if unknown := [rule for rule in metadata if type(rule) not in rules]:
        raise TypeError(f"a rule that the page cannot show: {unknown}")
    if [type(rule) for rule in metadata] == [annotated_types.Ge, annotated_types.Le]:
        return f", {metadata[0].ge:g} to {metadata[1].le:g}"
    said = ", ".join(rules[type(rule)](rule) for rule in metadata)
    return f" {said}" if said.startswith(("≥", ">", "≤", "&")) else f", {said}" if said else ""
