"""The page of all commands, `docs/reference/commands.md`."""

from pathlib import Path

from tools.command_line import Command, Parameter, read_commands
from tools.markdown import NOTICE, code, escape, paragraphs, table

_KINDS = {bool: "flag", int: "integer", float: "number", str: "text", Path: "path"}


def commands_page() -> str:
    """Return the page."""
    program, *commands = read_commands()
    typed = [command for command in commands if not command.is_group]
    rows = [(f"[`{c.name}`](#{c.name.replace(' ', '-')})", _summary(c)) for c in typed]
    parts = [
        "# Commands",
        NOTICE,
        *paragraphs(program.help),
        "Every command takes `-h` and `--help`, which print what is listed here. The keys of configuration files (`-c`)"
        " and of `--set` are listed under [Configuration](configuration.md).",
        table(("Command", "What it does"), rows),
    ]
    for command in (program, *typed):
        parts += _section(command)
    return "\n\n".join(parts) + "\n"


def usage(command: Command) -> str:
    """Return how a command is typed: required options and arguments, the rest summed up."""
    words = [command.name]
    words += [f"{_shortest(p)} {p.metavar}".strip() for p in command.options if p.required]
    if any(not p.required for p in command.options):
        words.append("[OPTIONS]")
    words += [_argument(p) for p in command.arguments]
    return " ".join([*words, "COMMAND"] if command.is_group else words)


def _section(command: Command) -> list[str]:
    parts = [f"## {command.name}", *([] if command.is_group else paragraphs(command.help))]
    parts.append(f"Usage: `{usage(command)}`")
    if command.arguments:
        rows = [(code(p.metavar), *_cells(p)) for p in command.arguments]
        parts.append(table(("Argument", "Value", "Default", "Description"), rows))
    if command.options:
        rows = [(", ".join(map(code, p.flags)), *_cells(p)) for p in command.options]
        parts.append(table(("Option", "Value", "Default", "Description"), rows))
    return parts


def _cells(parameter: Parameter) -> tuple[str, str, str]:
    return _value(parameter), _default(parameter), _description(parameter)


def _summary(command: Command) -> str:
    return paragraphs(command.help)[0]


def _shortest(parameter: Parameter) -> str:
    return min(parameter.flags, key=len)


def _argument(parameter: Parameter) -> str:
    word = parameter.metavar + ("..." if parameter.repeatable else "")
    return word if parameter.required else f"[{word}]"


def _value(parameter: Parameter) -> str:
    value = ", ".join(map(code, parameter.choices)) or _KINDS[parameter.kind]
    low, high = parameter.minimum, parameter.maximum
    if low is not None and high is not None:
        value += f", {low:g} to {high:g}"
    elif low is not None:
        value += f" ≥ {low:g}"
    elif high is not None:
        value += f" ≤ {high:g}"
    return f"{value}; repeatable" if parameter.repeatable else value


def _default(parameter: Parameter) -> str:
    if parameter.required:
        return "required"
    if parameter.kind is bool:
        return "on" if parameter.default else "off"
    return "" if parameter.default is None else code(str(parameter.default))


def _description(parameter: Parameter) -> str:
    said = escape(parameter.help)
    if all(word in parameter.help for word in parameter.known):
        return said
    return f"{said} Known: {', '.join(map(code, parameter.known))}."
