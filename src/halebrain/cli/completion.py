"""Shell completion: names that are known without loading a heavy library."""

from collections.abc import Callable, Sequence

import typer

from halebrain.core.shipped_configs import shipped_configs

_KINDS = {"benchmark": "matrix", "prepare": "reconstructor"}
"""Command → prefix of its shipped configurations, if it is not the name of the command."""


def among(*known: str) -> Callable[[str], list[str]]:
    """Return a completer of known words."""

    def offer(incomplete: str) -> list[str]:
        return _begun(incomplete, known)

    return offer


def model_names(incomplete: str) -> list[str]:
    """Complete model names; if none fits, the shell completes paths."""
    from halebrain.models.store import stored_models

    return _begun(incomplete, [model.name for model in stored_models()])


def config_names(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the shipped configurations of the command; if none fits, the shell completes paths."""
    command = context.info_name or ""
    kind = _KINDS.get(command, command)
    return _begun(incomplete, list(shipped_configs(kind)))


def _begun(incomplete: str, known: Sequence[str]) -> list[str]:
    return [word for word in known if word.startswith(incomplete)]
