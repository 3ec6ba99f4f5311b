"""What the command line declares, as plain values: every command, and what it takes."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from typer.models import ParameterInfo

from halebrain.cli import completion
from halebrain.cli.main import app


@dataclass(frozen=True)
class Parameter:
    """An argument or an option.

    Args:
        name: In the code.
        flags: How an option is written, each way; empty for an argument.
        kind: `bool` (a flag), `int`, `float`, `str` or `Path`.
        help: What it says of itself.
        default: Where it is not given; `None` = nothing.
        required: Whether it must be given.
        repeatable: Whether it may be given several times.
        choices: The only words that are taken; empty = no such list.
        known: Words that the shell offers.
        minimum: The smallest number that is taken.
        maximum: The largest.
    """

    name: str
    flags: tuple[str, ...]
    kind: type
    help: str
    default: Any = None
    required: bool = False
    repeatable: bool = False
    choices: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None

    @property
    def metavar(self) -> str:
        """The word that stands for its value in a usage line."""
        if not self.flags:
            return self.name.upper()
        return {Path: "PATH", int: "INTEGER", float: "NUMBER", bool: ""}.get(self.kind, "TEXT")


@dataclass(frozen=True)
class Command:
    """A command.

    Args:
        name: As it is typed, with the program ("halebrain train segmenter").
        help: What it says of itself, several paragraphs.
        parameters: Arguments and options, in their order.
        is_group: Whether commands follow it.
    """

    name: str
    help: str
    parameters: tuple[Parameter, ...]
    is_group: bool

    @property
    def arguments(self) -> tuple[Parameter, ...]:
        """Those without a flag."""
        return tuple(p for p in self.parameters if not p.flags)

    @property
    def options(self) -> tuple[Parameter, ...]:
        """Those with a flag."""
        return tuple(p for p in self.parameters if p.flags)


def read_commands() -> list[Command]:
    """Return the program and every command of it, in the order of its help."""
    return list(_walk("halebrain", typer.main.get_command(app)))


def _walk(name: str, command: Any) -> Iterator[Command]:
    below = getattr(command, "commands", {})
    hints = get_type_hints(command.callback, include_extras=True) if command.callback else {}
    context = typer.Context(command, info_name=name.split()[-1])
    parameters = tuple(
        _parameter(param, hints.get(param.name, bool), context)
        for param in command.params
        if not getattr(param, "hidden", False)
    )
    yield Command(name, inspect.cleandoc(command.help or ""), parameters, bool(below))
    for inner, found in below.items():
        yield from _walk(f"{name} {inner}", found)


def _parameter(param: Any, hint: Any, context: typer.Context) -> Parameter:
    kind, repeatable, info = _plain(hint)
    choices: tuple[str, ...] = ()
    if issubclass(kind, Enum):
        choices, kind = tuple(str(member.value) for member in kind), str
    return Parameter(
        name=param.name,
        flags=() if param.param_type_name == "argument" else (*param.opts, *param.secondary_opts),
        kind=kind,
        help=param.help or "",
        default=_default(param.default),
        required=param.required,
        repeatable=repeatable,
        choices=choices,
        known=_known(info, context),
        minimum=getattr(info, "min", None),
        maximum=getattr(info, "max", None),
    )


def _plain(hint: Any) -> tuple[type, bool, ParameterInfo | None]:
    """Return the type that is behind an annotation, whether there is a list of it, and what typer is told."""
    info = None
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        info = next((one for one in rest if isinstance(one, ParameterInfo)), None)
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (one for one in get_args(hint) if one is not NoneType)
    repeatable = get_origin(hint) is list
    return (get_args(hint)[0] if repeatable else hint), repeatable, info


def _default(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return value.as_posix()
    if callable(value):
        raise TypeError("a default that is computed depends on the machine")
    return value


def _known(info: ParameterInfo | None, context: typer.Context) -> tuple[str, ...]:
    """Return the words that the shell offers, but for names of models, which are those of this machine."""
    offer = info.autocompletion if info is not None else None
    if offer is None or offer is completion.model_names:
        return ()
    return tuple(offer(context, "") if offer is completion.config_names else offer(""))
