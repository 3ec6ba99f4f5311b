"""JSON documents with typed fields: each is written and read in one place, and its types are checked on reading."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Self, Union, get_args, get_origin, get_type_hints

from halebrain.core.errors import DataError

_OWN = ("unstated", "more")
_WORDS = {float: "a number", int: "a whole number", str: "a text", bool: "true or false", NoneType: "null"}


@dataclass(frozen=True, kw_only=True)
class Document:
    """A JSON object; its fields are those of a subclass, in their order.

    Args:
        unstated: Fields that the JSON does not hold, as other versions wrote fewer of them. Writing leaves them out
            while they have their default.
        more: What the JSON holds besides, of other versions; it is written again.
    """

    unstated: frozenset[str] = frozenset()
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, found: object, *, rule: str, where: Path, remedy: str) -> Self:
        """Return the document that a JSON value holds; `rule` says in words what must hold, for the message."""
        try:
            return cls._read(found, "")
        except _MismatchError as error:
            raise DataError(rule, received=error, where=where, remedy=remedy) from error

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        stated = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name not in _OWN and not (one.name in self.unstated and value == one.default):
                stated[one.name] = _plain(value)
        return stated | dict(self.more)

    @classmethod
    def _read(cls, found: object, place: str) -> Self:
        if not isinstance(found, dict):
            raise _MismatchError(place, "an object", found)
        known = {one.name: one for one in fields(cls) if one.name not in _OWN}
        values, wanted = {}, get_type_hints(cls)
        for name, one in known.items():
            if name in found:
                values[name] = _typed(found[name], wanted[name], f"{place}.{name}" if place else name)
            elif one.default is MISSING:
                raise _MismatchError(place, f"an object with the key {name}", found)
        more = {name: value for name, value in found.items() if name not in known}
        return cls(**values, unstated=frozenset(known.keys() - found.keys()), more=more)


class _MismatchError(Exception):
    """A JSON value is of another type than its field."""

    def __init__(self, place: str, wanted: str, found: object) -> None:
        text = json.dumps(found)
        super().__init__(f"{text if len(text) <= 80 else f'{text[:77]}…'} instead of {wanted} at {place!r}")


def read_object(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """Return the JSON object in a file; `what` is its kind for messages, `remedy` what the user can do otherwise."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{what} must be JSON", received=error, where=path, remedy=remedy) from error
    if not isinstance(found, dict):
        raise DataError(f"{what} must be a JSON object", received=type(found).__name__, where=path, remedy=remedy)
    return found


def _typed(value: Any, wanted: Any, place: str) -> Any:
    """Return a JSON value as a field holds it: lists as tuples, objects as documents."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin in (Union, UnionType):
        chosen = NoneType if value is None and NoneType in inner else next(one for one in inner if one is not NoneType)
        return _typed(value, chosen, place)
    if origin is tuple:
        return _tuple(value, inner, place)
    if origin is not None:
        if not isinstance(value, dict):
            raise _MismatchError(place, "an object", value)
        return {key: _typed(one, inner[1], f"{place}.{key}") for key, one in value.items()}
    if wanted is Any:
        return value
    if issubclass(wanted, Document):
        return wanted._read(value, place)
    # JSON has one kind of number, and Python counts true as 1.
    fits = isinstance(value, (int, float) if wanted is float else wanted)
    if not fits or (isinstance(value, bool) and wanted is not bool):
        raise _MismatchError(place, _WORDS[wanted], value)
    return value


def _tuple(value: Any, inner: tuple[Any, ...], place: str) -> tuple[Any, ...]:
    is_open = inner[-1] is Ellipsis
    if not isinstance(value, list) or not (is_open or len(value) == len(inner)):
        raise _MismatchError(place, "a list" if is_open else f"a list of {len(inner)}", value)
    kinds = inner[:1] * len(value) if is_open else inner
    return tuple(_typed(one, kind, f"{place}[{n}]") for n, (one, kind) in enumerate(zip(value, kinds, strict=True)))


def _plain(value: Any) -> Any:
    if isinstance(value, Document):
        return value.to_json()
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value
