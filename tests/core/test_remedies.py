"""Errors that the user can fix state the remedy."""

import ast
from pathlib import Path

import pytest

from halebrain.core import errors

SOURCE = Path(errors.__file__).parents[1]
NAMED = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.HalebrainError) and kind is not errors.HalebrainError
}


def raised(path):
    """Yield the line and the arguments by name of each error that a file makes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NAMED:
            yield node.lineno, {keyword.arg for keyword in node.keywords}


@pytest.mark.parametrize("floor", sorted(path.name for path in SOURCE.iterdir() if path.is_dir()))
def test_an_error_names_its_remedy(floor):
    lacking = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in sorted((SOURCE / floor).rglob("*.py"))
        for line, given in raised(path)
        if not given & {"remedy", None}
    ]
    assert lacking == []
