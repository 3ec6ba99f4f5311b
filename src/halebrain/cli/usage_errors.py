"""Errors of the option parser as one line with the words received and what to do, like every other error."""

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperGroup
from typer.models import ParameterInfo

from halebrain.core.errors import UsageError
from halebrain.core.registry import suggestion

_ParserError: Any = typer.BadParameter.__bases__[0]
"""The base of all errors of the parser; the library has it in different places in different versions."""
_NOUNS = {int: "a whole number", float: "a number", Path: "a path"}


class OneLineGroup(TyperGroup):
    """A group of commands that raises a `UsageError` for what the parser refuses, in its own words or its commands'."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the options of the group."""
        with self._one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Parse the options of the command, and run it."""
        with self._one_line(ctx):
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command of a name."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-") and not ctx.resilient_parsing:
            remedy = suggestion(name, list(self.commands))
            raise UsageError(f"{ctx.command_path} has no such command", received=f"'{name}'", remedy=remedy)
        return super().resolve_command(ctx, args)

    @contextmanager
    def _one_line(self, group: Any = None) -> Iterator[None]:
        try:
            yield
        except _ParserError as error:
            if type(error).__name__ == "NoArgsIsHelpError":  # the help itself
                raise
            command: Any = self
            path = "halebrain"
            if error.ctx is not None:
                command, path = error.ctx.command, error.ctx.command_path
            elif group is not None and group.invoked_subcommand in self.commands:
                command = self.commands[group.invoked_subcommand]
                path = f"{group.command_path} {group.invoked_subcommand}"
            raise _translated(error, command, path) from None


def _translated(error: Any, command: Any, path: str) -> UsageError:
    kind, see = type(error).__name__, f"see {path} --help"
    if kind == "NoSuchOption":
        return UsageError(f"{path} has no such option", received=error.option_name, remedy=_near(error, command, see))
    if kind == "BadOptionUsage":
        is_flag = any(getattr(p, "is_flag", False) for p in command.params if error.option_name in p.opts)
        rule, received = ("takes no value", "one") if is_flag else ("takes a value", "none")
        return UsageError(f"{error.option_name} of {path} {rule}", received=received, remedy=see)
    if kind == "MissingParameter" and error.param is not None:
        needed = " ".join([path, *(_typed(p) for p in command.params if p.required)])
        return UsageError(
            f"{path} needs {_name(error.param)}", received="none", remedy=f"the shortest call is {needed}"
        )
    value = _value(error)
    if value is not None:
        hint = get_type_hints(command.callback, include_extras=True).get(error.param.name, str)
        rule, choices = _accepted(hint)
        remedy = suggestion(value, choices) if choices else see
        return UsageError(f"{_name(error.param)} of {path} takes {rule}", received=f"'{value}'", remedy=remedy)
    extra = re.search(r"extra argument\S* \((.*)\)$", error.message)
    if extra:
        places = ", ".join(p.name.upper() for p in command.params if not _is_option(p)) or "options only"
        return UsageError(f"{path} takes {places}", received=f"'{extra[1]}' as well", remedy=see)
    return UsageError(error.format_message().rstrip("."), remedy=see)


def _near(error: Any, command: Any, see: str) -> str:
    """Return the option that is most like an unknown one."""
    known = [flag for p in command.params if not getattr(p, "hidden", False) for flag in (*p.opts, *p.secondary_opts)]
    close = difflib.get_close_matches(error.option_name, [flag for flag in known if flag.startswith("--")], n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"options follow the name of a command; {see}" if hasattr(command, "commands") else see


def _is_option(param: Any) -> bool:
    return bool(param.param_type_name == "option")


def _name(param: Any) -> str:
    """Return a parameter as it is typed: `--output` or `MODEL`."""
    return str(max(param.opts, key=len)) if _is_option(param) else str(param.name.upper())


def _typed(param: Any) -> str:
    """Return a required parameter in its shortest form, with a word for its value."""
    word = _name(param).lstrip("-").replace("-", "_").upper()
    return f"{min(param.opts, key=len)} {word}" if _is_option(param) else word


def _value(error: Any) -> str | None:
    """Return the word that a parameter does not take, where the parser says so."""
    cause = error.__cause__
    return str(cause.errors()[0]["input"]) if hasattr(cause, "errors") and error.param is not None else None


def _accepted(hint: Any) -> tuple[str, list[str]]:
    """Return what the annotation of a parameter takes in words, and the only words that it takes, if there are such."""
    kind, *more = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    info = next((one for one in more if isinstance(one, ParameterInfo)), None)
    while get_args(kind):  # a list of it, or none
        kind = next(one for one in get_args(kind) if one is not NoneType)
    if issubclass(kind, Enum):
        words = [str(member.value) for member in kind]
        return f"{', '.join(words[:-1])} or {words[-1]}", words
    low, high = (getattr(info, name, None) for name in ("min", "max"))
    noun = _NOUNS.get(kind, "another value")
    if low is not None and high is not None:
        return f"{noun} from {low:g} to {high:g}", []
    limits = [f" of at {word} {limit:g}" for word, limit in (("least", low), ("most", high)) if limit is not None]
    return "".join([noun, *limits]), []
