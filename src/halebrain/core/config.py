"""Typed configuration: YAML and `key=value` overrides in, frozen pydantic models out.

An unknown key is an error that names the closest valid one; a wrong type names the key, the value and the file.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, ClassVar, TypeVar, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from halebrain.core.errors import ConfigError, MissingInputError
from halebrain.core.messages import Notify, log_message
from halebrain.core.registry import suggestion

FORMER_KEYS = {
    "around_mm": "through_plane_sigma_wide_mm",
    "heals": "train_with_anomalies",
    "healthy_share": "population_fraction",
    "kept": "original_weight",
    "kept_one_subject": "original_weight_one_subject",
    "more_weight": "oversample_factor",
    "most": "max_blobs",
    "moved": "moved_fraction",
    "strongest": "stronger_gradient_fraction",
}
"""Former name of a key → its name. Files of users may hold the former ones until version 0.4, models for ever."""


class Config(BaseModel):
    """Base of every configuration section: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _take_no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Python counts with True as 1, so `steps: true` would pass as one step.
        wanted = cls.model_fields[str(info.field_name)].annotation
        kinds = (wanted, *get_args(wanted))  # of `int | None`, too
        if isinstance(value, bool) and bool not in kinds and (int in kinds or float in kinds):
            raise ValueError("input should be a number")
        return value


class GrowingConfig(Config):
    """A section that may gain options: those in `ADDED_FIELDS` are left out of a dump while they are at their default.

    A run is known by the hash of its dump, so one that began before an option existed goes on after it.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _leave_out_what_came_later(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dump: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {k: v for k, v in dump.items() if k not in self.ADDED_FIELDS or getattr(self, k) != fields[k].default}


C = TypeVar("C", bound=Config)
_EXTENDS = "extends"
_MOST_VALUES = 100_000
_MERGE = "tag:yaml.org,2002:merge"


def load_config(
    model: type[C], path: Path | None, overrides: Sequence[str] = (), *, base: dict[str, Any] | None = None
) -> C:
    """Read a YAML file, apply `a.b=value` overrides, and validate.

    Args:
        model: The configuration class expected.
        path: The YAML file; `None` starts from the defaults.
        overrides: `key=value` pairs with dotted keys (`of.0.name` for the first item of a list); values are YAML.
        base: Settings in place of a file's.
    """
    raw = read_yaml(path) if path is not None else with_present_keys(base or {})
    for pair in _names_first(overrides):
        _apply_override(raw, pair)
    return parse_config(model, raw, where=path or "--set")


def with_present_keys(value: Any, *, where: object = "", notify: Notify | None = None) -> Any:
    """Return a copy of settings with present key names at any depth; one given under both names is refused."""
    former: list[str] = []
    renamed = _renamed(value, FORMER_KEYS, where, former)
    if former and notify is not None:
        notify(_former_text(where, former))
    return renamed


def _former_text(where: object, former: Sequence[str]) -> str:
    said = ", ".join(f"{key} is now {FORMER_KEYS[key]}" for key in sorted(set(former)))
    return f"warning: {where}: {said}; former names are understood until version 0.4"


def with_former_keys(value: Any) -> Any:
    """Return settings with the former names of keys, as in JSON documents and in the hashes of runs that began so."""
    return _renamed(value, {new: old for old, new in FORMER_KEYS.items()}, "settings", [])


def _renamed(value: Any, names: dict[str, str], where: object, found: list[str]) -> Any:
    if isinstance(value, list | tuple):
        return [_renamed(one, names, where, found) for one in value]
    if not isinstance(value, dict):
        return value
    result: dict[str, Any] = {}
    for key, one in value.items():
        # A mapping is a section; what is called so there is a name that the user chose.
        name: Any = key if isinstance(one, dict) else names.get(key, key)
        if name != key:
            found.append(key)
            if name in value:
                raise ConfigError(
                    "a key must be given under one name",
                    received=f"{key} and {name}",
                    where=where,
                    remedy=f"remove {key}",
                )
        result[name] = _renamed(one, names, where, found)
    return result


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping from `path`; `extends: FILE` in it merges it over that file, relative to its own folder."""
    return _read_extending(path, ())


def _read_extending(path: Path, before: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in before:
        raise ConfigError(
            "a configuration must not extend itself", where=path, remedy="remove extends from one of the files"
        )
    raw = _read_one(path)
    base = raw.pop(_EXTENDS, None)
    if base is None:
        return raw
    if not isinstance(base, str) or "\0" in base:
        raise ConfigError(
            "extends must name a file", received=repr(base), where=path, remedy="for example extends: other.yaml"
        )
    return merged(_read_extending(path.parent / base, (*before, path.resolve())), raw)


def _read_one(path: Path) -> dict[str, Any]:
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"), where=path)
    except UnicodeDecodeError as error:
        raise ConfigError(
            "a configuration must be UTF-8 text", received=error, where=path, remedy="save it as UTF-8"
        ) from error
    except OSError as error:  # absent, a folder, or a name that is too long for one
        raise MissingInputError(
            "a configuration file must exist", received=error.strerror, where=path, remedy="check the path given"
        ) from error
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(
            "a configuration must be a mapping of keys",
            received=type(raw).__name__,
            where=path,
            remedy="write key: value, a line each",
        )
    present: dict[str, Any] = with_present_keys(raw, where=path, notify=log_message)
    return present


class _EachKeyOnce(yaml.SafeLoader):
    """YAML takes the last of equal keys, so a section that is written twice would lose its first part."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return a mapping whose keys differ; those that `<<` brings in may be given again."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, object], int] = {}
        for key, _ in node.value:
            line, name = key.start_mark.line + 1, (key.tag, key.value)
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:  # of several `<<` none is lost
                continue
            if name in lines:
                raise yaml.YAMLError(f"the key {key.value} in line {lines[name]} and again in line {line}")
            lines[name] = line
        return node


def parse_yaml(text: str | bytes, *, where: object) -> Any:
    """Return the value that a YAML text holds; size and nesting are limited, references to itself are refused."""
    try:
        raw = yaml.load(text, Loader=_EachKeyOnce)
        size = _size(raw, {})
    # A date that is none, or a number of thousands of digits, is a ValueError; a deep one ends the recursion.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(
            "a configuration must be valid YAML", received=error, where=where, remedy="fix that line"
        ) from error
    if size > _MOST_VALUES:
        raise ConfigError(
            f"a configuration may hold at most {_MOST_VALUES} values",
            received="more, most of them by references (&name, *name)",
            where=where,
            remedy="write the values out instead of repeating references",
        )
    return raw


def _size(node: Any, known: dict[int, int]) -> int:
    """Return how many values a mapping or list holds, each reference counted; `ValueError` where it contains itself."""
    if isinstance(node, int) and node.bit_length() > 64:
        raise ValueError("an integer of more than 64 bits")
    if not isinstance(node, dict | list):
        return 1
    if id(node) not in known:
        known[id(node)] = -1
        inside = node.values() if isinstance(node, dict) else node
        known[id(node)] = 1 + sum(_size(one, known) for one in inside)
    if known[id(node)] < 0:
        raise ValueError("a value that contains itself")
    return known[id(node)]


def merged(*settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings laid over each other, the last on top, section by section.

    Where a layer names another method (`name`), the `settings` of the one below are not its own and are dropped.

    Example:
        >>> merged({"loop": {"steps": 5, "lr": 1}}, {"loop": {"steps": 9}})
        {'loop': {'steps': 9, 'lr': 1}}
    """
    result: dict[str, Any] = {}
    for layer in settings:
        for key, value in layer.items():
            below = result.get(key)
            if isinstance(below, dict) and isinstance(value, dict):
                kept = _without_foreign_settings(below, value.get("name"))
                result[key] = merged(kept, value)
            else:
                result[key] = value
    return result


def over_defaults(model: type[Config], raw: dict[str, Any]) -> dict[str, Any]:
    """Return settings in which a section that is given in part keeps the rest of what `model` has there by default."""
    result = dict(raw)
    for name, field in model.model_fields.items():
        default, given = field.get_default(call_default_factory=True), raw.get(name)
        if not isinstance(given, dict):
            continue
        if isinstance(default, Config):
            known = default.model_dump(mode="json", exclude_unset=True)
            result[name] = merged({name: known}, {name: over_defaults(type(default), given)})[name]
        elif isinstance(default, dict):
            result[name] = merged(default, given)
    return result


def _without_foreign_settings(section: dict[str, Any], name: object) -> dict[str, Any]:
    if name is None or "name" not in section or section["name"] == name:
        return section
    return {key: value for key, value in section.items() if key != "settings"}


def parse_config(model: type[C], raw: dict[str, Any], *, where: object = "") -> C:
    """Validate a plain mapping, laid over the defaults of `model`, turning the first problem into one clear line."""
    present = with_present_keys(raw, where=where)
    try:
        return model.model_validate(over_defaults(model, present) if isinstance(present, dict) else present)
    except ValidationError as error:
        raise _explain(model, error, where) from error


def dump_yaml(config: Config) -> str:
    """Return the resolved configuration, defaults included, as YAML in declaration order."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def portable_dump(config: Config) -> dict[str, Any]:
    """Return settings as JSON for a file that leaves this machine: of an absolute path only the last name is kept."""
    return {key: strip_absolute_paths(value) for key, value in config.model_dump(mode="json").items()}


def strip_absolute_paths(value: Any) -> Any:
    """Return a value of JSON in which every absolute path, at any depth, is its last name."""
    if isinstance(value, dict):
        return {key: strip_absolute_paths(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [strip_absolute_paths(one) for one in value]
    if isinstance(value, str) and (PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()):
        return PureWindowsPath(value).name  # knows both separators
    return value


def parse_pair(pair: str) -> dict[str, Any]:
    """Return `a.b=value` as `{"a": {"b": value}}`, the value read as YAML."""
    nested: dict[str, Any] = {}
    _apply_override(nested, pair)
    return nested


def _names_first(pairs: Sequence[str]) -> list[str]:
    """Return `key=value` pairs with the name of a method before its settings: another name would drop those."""
    ordered: list[str] = []
    for pair in pairs:
        key = pair.partition("=")[0]
        settings = f"{key.removesuffix('name')}settings"
        dropped = (place for place, other in enumerate(ordered) if key.endswith(".name") and other.startswith(settings))
        ordered.insert(next(dropped, len(ordered)), pair)
    return ordered


def _apply_override(raw: dict[str, Any], pair: str) -> None:
    key, separator, text = pair.partition("=")
    if not separator or not key:
        raise ConfigError("--set takes key=value", received=repr(pair), remedy="for example --set steps=500")
    *parents, given = key.split(".")
    leaf = FORMER_KEYS.get(given, given)
    if leaf != given:
        log_message(_former_text("--set", [given]))
    node: Any = raw
    for parent in parents:
        child = _child(node, parent, key)
        if not isinstance(child, dict | list):
            raise ConfigError(
                "--set must name a section",
                received=repr(key),
                where=parent,
                remedy="it holds a value, not keys: set it as a whole",
            )
        node = child
    if isinstance(node, list):
        raise ConfigError(
            "--set changes one key of a list item", received=repr(key), remedy="name the key after the item"
        )
    try:
        value = with_present_keys(parse_yaml(text, where="--set"), where="--set", notify=log_message)
    except ConfigError as error:
        raise ConfigError(
            "--set takes a YAML value", received=repr(text), where=key, remedy="quote it for the shell"
        ) from error
    if leaf == "name" and "settings" in node and node is not _without_foreign_settings(node, value):
        del node["settings"]
    node[leaf] = value


def _child(node: Any, name: str, key: str) -> Any:
    """Return the section called `name`, made where it is missing; of a list, the item of that number from 0."""
    if isinstance(node, dict):
        return node.setdefault(name, {})
    if not name.isdecimal() or int(name) >= len(node):
        raise ConfigError(
            f"--set must name an item of a list, 0 to {len(node) - 1}",
            received=repr(key),
            where=name,
            remedy="give its number",
        )
    return node[int(name)]


def _explain(model: type[Config], error: ValidationError, where: object) -> ConfigError:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location) or "the configuration"
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        remedy = suggestion(location[-1], known) if known else "remove it"
        return ConfigError("a configuration takes known keys only", received=repr(key), where=where, remedy=remedy)
    rest = len(error.errors()) - 1
    remedy = "fix it" + (f" ({rest} more problem{'s' if rest > 1 else ''} after it)" if rest else "")
    said = first["msg"].removeprefix("Value error, ")
    message = said[:1].lower() + said[1:]
    given = first.get("input")
    # Of a rule about several settings the message names them, and the whole section would hide it.
    received = "" if isinstance(given, dict | BaseModel) else repr(given)
    return ConfigError(f"{key}: {message}", received=received, where=where, remedy=remedy)


def _fields_at(model: type[BaseModel], location: list[str]) -> list[str]:
    """Return the field names of the section that `location` leads to; [] where it is a union."""
    parts = iter(location)
    for part in parts:
        field = model.model_fields.get(part)
        annotations = [] if field is None else [field.annotation, *get_args(field.annotation)]
        sections = [a for a in annotations if isinstance(a, type) and issubclass(a, BaseModel)]
        if not sections:
            return []
        model = sections[0]
        if field is not None and get_origin(field.annotation) in (dict, list, tuple):
            next(parts, None)  # the name or number of the entry
    return list(model.model_fields)
