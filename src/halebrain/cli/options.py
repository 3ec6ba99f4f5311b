"""From settings to options: a class of settings among a command's parameters becomes one option for each field."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum, StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from halebrain.cli import completion
from halebrain.cli.console import echo_message
from halebrain.core.errors import UsageError
from halebrain.core.files import check_writable
from halebrain.workflows.settings import Option

Command = Callable[..., None]
PATH_FLAGS: set[str] = set()
"""Flags of all commands that take a path."""
VALUE_FLAGS: set[str] = set()
"""Those that take another value."""


def from_settings(**changes: Mapping[str, Option | None]) -> Callable[[Command], Command]:
    """Give a command one option for each field of its settings.

    A parameter annotated with a class of settings gets that class, filled from its options. One annotated with an
    `Option` becomes that option. Every other one is unchanged. Messages of the workflow go to stderr.

    Args:
        changes: Parameter of settings → field → another description; `None` = no option, the default holds.
    """

    def expand(function: Command) -> Command:
        hints = get_type_hints(function, include_extras=True)
        shown: dict[str, inspect.Parameter] = {}
        groups: dict[str, list[str]] = {}
        for name, parameter in inspect.signature(function).parameters.items():
            own = {name: parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)}
            if is_dataclass(hints[name]):
                own = _fields(hints[name], changes.get(name, {}))
                groups[name] = list(own)
            assert not shown.keys() & own.keys(), f"two options of one name: {shown.keys() & own.keys()}"
            shown |= own

        parameters = [_for_typer(parameter) for parameter in shown.values()]
        former = {name: hidden for name, one in shown.items() if (hidden := _former(one)) is not None}

        outputs = [name for name, one in shown.items() if _is_output(one)]

        @wraps(function)
        def run(**typed: Any) -> None:
            for name, hidden in former.items():
                typed[name] = _under_either_name(typed.pop(hidden.name), typed[name], shown[name])
            values = {name: _value(shown[name], value) for name, value in typed.items()}
            for name in outputs:
                if values[name] is not None:
                    check_writable(values[name])
            for name, keys in groups.items():
                values[name] = _filled(hints[name], {key: values.pop(key) for key in keys})
            function(**values)

        parameters += former.values()
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return expand


def _fields(settings: Any, changed: Mapping[str, Option | None]) -> dict[str, inspect.Parameter]:
    """Return the fields of a class of settings that are options, as parameters of a function."""
    hints, found = get_type_hints(settings, include_extras=True), {}
    for field in fields(settings):
        option = changed.get(field.name, _option(hints[field.name]))
        if option is not None:
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            hint: Any = Annotated[get_args(hints[field.name])[0], option]
            kind = inspect.Parameter.KEYWORD_ONLY
            found[field.name] = inspect.Parameter(field.name, kind, default=default, annotation=hint)
    return found


def _filled(settings: Any, values: Mapping[str, Any]) -> Any:
    messages = {"notify": echo_message} if any(field.name == "notify" for field in fields(settings)) else {}
    return settings(**values, **messages)


def _option(hint: Any) -> Option | None:
    return next((one for one in getattr(hint, "__metadata__", ()) if isinstance(one, Option)), None)


def _is_output(parameter: inspect.Parameter) -> bool:
    option = _option(parameter.annotation)
    return option is not None and option.is_output


def _for_typer(parameter: inspect.Parameter) -> inspect.Parameter:
    """Return a parameter with its option as typer takes it: choices as an enumeration, several values as a list."""
    option, default = _option(parameter.annotation), parameter.default
    if option is None:
        return parameter
    kind = get_args(parameter.annotation)[0]
    takes_path = Path in (kind, *get_args(kind))
    literal = next((one for one in (kind, *get_args(kind)) if get_origin(one) is Literal), None)
    if literal is not None:
        choices: Any = StrEnum("choices", {word: word for word in get_args(literal)})  # type: ignore[misc]
        kind = choices if kind is literal else choices | None
        default = choices(default) if isinstance(default, str) else default
    elif get_origin(kind) is tuple:
        several: Any = list[get_args(kind)[0]]  # type: ignore[misc]
        kind, default = (several, default) if default is inspect.Parameter.empty else (several | None, None)
    offered: dict[str, Any] = {"help": option.help, "autocompletion": _offer(option)}
    if option.is_argument:
        return parameter.replace(annotation=Annotated[kind, typer.Argument(**offered)], default=default)
    flags = option.flags or (f"--{parameter.name.replace('_', '-')}",)
    if kind is not bool:
        (PATH_FLAGS if takes_path else VALUE_FLAGS).update(flags)
    info = typer.Option(*flags, min=option.minimum, max=option.maximum, **offered)
    return parameter.replace(annotation=Annotated[kind, info], default=default)


def _former(parameter: inspect.Parameter) -> inspect.Parameter | None:
    """Return the hidden option that an option was called in earlier versions."""
    option = _option(parameter.annotation)
    if option is None or not option.former:
        return None
    info = typer.Option(option.former, min=option.minimum, max=option.maximum, hidden=True)
    hint: Any = Annotated[get_args(parameter.annotation)[0] | None, info]
    name = option.former.removeprefix("--").replace("-", "_")
    return parameter.replace(name=name, annotation=hint, default=None)


def _under_either_name(former: Any, present: Any, parameter: inspect.Parameter) -> Any:
    """Return the value of an option that may be given under its former name, with a warning, or its present one."""
    option = _option(parameter.annotation)
    if former is None or option is None:
        return present
    flag = f"--{parameter.name.replace('_', '-')}"
    if present != parameter.default:
        rule, received = "an option takes one name", f"{option.former} and {flag}"
        raise UsageError(rule, received=received, remedy=f"remove {option.former}")
    echo_message(f"warning: {option.former} is now {flag}; the former name is understood until version 0.4")
    return former


def _offer(option: Option) -> Callable[..., list[str]] | None:
    """Return what the shell offers; for anything else it completes paths."""
    if isinstance(option.known, tuple):
        return completion.among(*option.known) if option.known else None
    return completion.model_names if option.known == "models" else completion.config_names


def _value(parameter: inspect.Parameter, typed: Any) -> Any:
    """Return a value as the settings hold it."""
    if _option(parameter.annotation) is not None and get_origin(get_args(parameter.annotation)[0]) is tuple:
        return tuple(typed or ())
    return typed.value if isinstance(typed, Enum) else typed
