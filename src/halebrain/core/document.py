"""JSON documents with typed fields: each is written and read in one place, and its types are checked on reading."""

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
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
            return cls._read(found)
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
    def _read(cls, found: object) -> Self:
        if not isinstance(found, dict):
            raise _MismatchError("an object", found)
        kind: Any = cls
        readers, values = _readers(kind), {}
        for name, (read, is_needed) in readers.items():
            if name in found:
                try:
                    values[name] = read(found[name])
                except _MismatchError as error:
                    raise error.below(name) from None
            elif is_needed:
                raise _MismatchError(f"an object with the key {name}", found)
        more = {name: value for name, value in found.items() if name not in readers}
        return cls(**values, unstated=frozenset(readers.keys() - found.keys()), more=more)


class _MismatchError(Exception):
    """A JSON value is of another type than its field; its place is put together from the inside out."""

    def __init__(self, wanted: str, found: object) -> None:
        super().__init__(wanted, found)
        self.wanted, self.found, self.place = wanted, found, ""

    def below(self, place: str) -> Self:
        """Return it as that of a value which holds the mismatched one at a key or an index."""
        self.place = f"{place}{'' if not self.place or self.place.startswith('[') else '.'}{self.place}"
        return self

    def __str__(self) -> str:
        text = json.dumps(self.found)
        return f"{text if len(text) <= 80 else f'{text[:77]}…'} instead of {self.wanted} at {self.place!r}"


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


def _plain(value: Any) -> Any:
    if isinstance(value, Document):
        return value.to_json()
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value


_PLAIN: dict[Any, set[type]] = {float: {int, float}, str: {str}, int: {int}}
"""Types of JSON values that a field of a type takes without a look at each."""
_Read = Callable[[Any], Any]
"""Returns a JSON value as a field holds it: lists as tuples, objects as documents."""


def _below(place: str, read: _Read, value: Any) -> Any:
    """Return what lies at a key or at an index; a mismatch in it learns of its place."""
    try:
        return read(value)
    except _MismatchError as error:
        raise error.below(place) from None


@cache
def _readers(cls: type[Document]) -> dict[str, tuple[_Read, bool]]:
    """Return field → how it is read, and whether it must be there. Thousands of documents are of one class."""
    wanted, known = get_type_hints(cls), [one for one in fields(cls) if one.name not in _OWN]
    return {one.name: (_reader(wanted[one.name]), one.default is MISSING) for one in known}


def _reader(wanted: Any) -> _Read:
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin in (Union, UnionType):
        read = _reader(next(one for one in inner if one is not NoneType))
        if NoneType not in inner:
            return read
        return lambda value: None if value is None else read(value)
    if origin is tuple:
        return _tuple_reader(inner)
    if origin is not None:
        return _mapping_reader(_reader(inner[1]))
    if wanted is Any:
        return lambda value: value
    if issubclass(wanted, Document):
        read_document: _Read = wanted._read
        return read_document
    return _plain_reader(wanted)


def _plain_reader(wanted: type) -> _Read:
    # JSON has one kind of number, and Python counts true as 1.
    kinds = (int, float) if wanted is float else wanted

    def read(value: Any) -> Any:
        if not isinstance(value, kinds) or (isinstance(value, bool) and wanted is not bool):
            raise _MismatchError(_WORDS[wanted], value)
        return value

    return read


def _mapping_reader(read_value: _Read) -> _Read:
    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _MismatchError("an object", value)
        return {key: _below(key, read_value, one) for key, one in value.items()}

    return read


def _tuple_reader(inner: tuple[Any, ...]) -> _Read:
    is_open = inner[-1] is Ellipsis
    plain: set[type] = _PLAIN.get(inner[0], set()) if is_open else set()
    readers = [_reader(kind) for kind in (inner[:1] if is_open else inner)]

    def read(value: Any) -> Any:
        if not isinstance(value, list) or not (is_open or len(value) == len(inner)):
            raise _MismatchError("a list" if is_open else f"a list of {len(inner)}", value)
        if plain and set(map(type, value)) <= plain:  # long lists of numbers are common
            return tuple(value)
        each = readers * len(value) if is_open else readers
        return tuple(_below(f"[{n}]", read, one) for n, (one, read) in enumerate(zip(value, each, strict=True)))

    return read
