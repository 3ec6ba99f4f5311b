"""The configurations that come with the package, found by name."""

from pathlib import Path

from halebrain.core.errors import MissingInputError
from halebrain.core.registry import suggestion

_CONFIGS = Path(__file__).parent.parent / "configs"


def shipped_configs(kind: str) -> dict[str, Path]:
    """Return name → file of the shipped configurations of a kind ("reconstructor"), sorted."""
    return {path.stem.removeprefix(f"{kind}_"): path for path in sorted(_CONFIGS.glob(f"{kind}_*.yaml"))}


def find_config(path: Path | None, kind: str) -> Path | None:
    """Return the configuration file: `path` itself, or the shipped one of that name ("tiny", "demo", "paper").

    `kind` is how the names of its files begin ("reconstructor", "segmenter", "matrix").
    """
    if path is None or path.is_file() or path.suffix:
        return path
    shipped = shipped_configs(kind)
    if str(path) not in shipped:
        raise MissingInputError(
            "a configuration is a YAML file or the name of a shipped one",
            received=repr(str(path)),
            remedy=suggestion(str(path), list(shipped)),
        )
    return shipped[str(path)]
