"""The Boutiques descriptor of the BIDS App, `boutiques.json`: for CBRAIN and platforms that run tools by descriptor.

Source of the format: the descriptor schema 0.5, Glatard et al., GigaScience 2018.
"""

import json
from typing import Any

import halebrain
from halebrain.core import errors
from tools.command_line import Command, Parameter, read_commands

_NAME = "halebrain bids"
_FILES = {"bids_dir", "bids_filter_file"}
"""Paths that must be there before; others are made, or may be a name."""
_OUTPUT = "out_dir"


def boutiques_descriptor() -> str:
    """Return the descriptor as JSON."""
    (command,) = (command for command in read_commands() if command.name == _NAME)
    return json.dumps(_descriptor(command), indent=2, ensure_ascii=False) + "\n"


def _descriptor(command: Command) -> dict[str, Any]:
    keys = [_key(parameter) for parameter in (*command.arguments, *command.options)]
    return {
        "name": "HaleBrain",
        "description": f"{' '.join(command.help.split())} Research use only; not a medical device.",
        "author": "The HaleBrain developers",
        "tool-version": halebrain.__version__,
        "schema-version": "0.5",
        "command-line": " ".join([command.name, *keys]),
        "inputs": [_input(parameter) for parameter in (*command.arguments, *command.options)],
        "output-files": [
            {
                "id": "derivative",
                "name": "BIDS derivative",
                "description": "Maps, masks, tables and pages, and the log of each scan.",
                "path-template": f"[{_OUTPUT.upper()}]",
            }
        ],
        "error-codes": _error_codes(),
        "tags": {"domain": ["neuroinformatics", "mri"], "app": ["bids"]},
    }


def _key(parameter: Parameter) -> str:
    return f"[{parameter.name.upper()}]"


def _input(parameter: Parameter) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": parameter.name,
        "name": parameter.name.replace("_", " "),
        "description": _description(parameter),
        "value-key": _key(parameter),
        "optional": not parameter.required,
        **_type(parameter),
    }
    if parameter.flags:
        entry["command-line-flag"] = next(flag for flag in parameter.flags if flag.startswith("--"))
    if parameter.repeatable:
        entry["list"] = True
    if parameter.choices:
        entry["value-choices"] = list(parameter.choices)
    return entry


def _description(parameter: Parameter) -> str:
    if parameter.default is None or parameter.kind is bool:
        return parameter.help
    return f"{parameter.help} Default: {parameter.default}."


def _type(parameter: Parameter) -> dict[str, Any]:
    if parameter.kind is bool:
        return {"type": "Flag"}
    if parameter.kind in (int, float):
        number: dict[str, Any] = {"type": "Number", "integer": parameter.kind is int}
        limits = {"minimum": parameter.minimum, "maximum": parameter.maximum}
        return number | {name: limit for name, limit in limits.items() if limit is not None}
    return {"type": "File" if parameter.name in _FILES else "String"}


def _error_codes() -> list[dict[str, Any]]:
    """Return the exit codes of the errors, each with what it says of itself."""
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.HalebrainError)]
    named = {
        one.exit_code: (one.__doc__ or "").strip().splitlines()[0]
        for one in classes
        if one is not errors.HalebrainError
    }
    return [{"code": number, "description": named[number]} for number in sorted(named)]
