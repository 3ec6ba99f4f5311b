"""Models by name: bundled with the package, or imported into `HALEBRAIN_HOME`.

Opening a model needs torch, which is imported only then, so that names are listed without it.
"""

import os
import zipfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from halebrain.core.errors import CannotWriteError, DataError, MissingInputError, UnavailableError, UsageError
from halebrain.core.files import atomic_path
from halebrain.core.home import VARIABLE, halebrain_home, is_writable
from halebrain.core.registry import suggestion

if TYPE_CHECKING:
    from halebrain.models.bundle import Bundle

DEFAULT_MODEL = "general"
"""The model that is used without --model."""
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip can hold, so that the same model gives the same bytes."""


@dataclass(frozen=True)
class StoredModel:
    """A model that can be named instead of its path, a zip; `origin` is "bundled" with the package, or "imported"."""

    name: str
    path: Path
    origin: str


def stored_models() -> list[StoredModel]:
    """Return every model that has a name, sorted; an imported model takes precedence over a bundled one."""
    home = halebrain_home()
    places = [("bundled", bundled_folder()), *([] if home is None else [("imported", home / "models")])]
    found = {
        path.stem: StoredModel(path.stem, path, origin) for origin, folder in places for path in sorted(_zips(folder))
    }
    return [found[name] for name in sorted(found)]


def _zips(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.suffix == ".zip"]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        if VARIABLE not in os.environ:
            return []
        raise UnavailableError(
            "imported models must be readable",
            received=error.strerror,
            where=folder,
            remedy=f"set {VARIABLE} to another folder, or unset it",
        ) from error


def size_bytes(model: Path) -> int:
    """Return the size of a zip, or of the files in a bundle folder."""
    files = [model] if model.is_file() else [file for file in model.iterdir() if file.is_file()]
    return sum(file.stat().st_size for file in files)


def bundled_folder() -> Path:
    """Return where the package keeps its own models."""
    return Path(str(files("halebrain"))) / "weights"


def find_model(model: Path | str | None = None) -> Path:
    """Return the path of a model that is given by its path or its name; of the default one where it is not given.

    A path takes precedence over a name, and an imported model over a bundled one of the same name.
    """
    if model is not None and Path(model).exists():
        return Path(model)
    models = {stored.name: stored.path for stored in stored_models()}
    name = DEFAULT_MODEL if model is None else str(model)
    if name in models:
        return models[name]
    if model is None:
        raise UnavailableError(
            f"without --model, the model '{DEFAULT_MODEL}' is used",
            received="a copy of HaleBrain without its weights",
            where=bundled_folder(),
            remedy=f"give --model, or run halebrain models import BUNDLE --name {DEFAULT_MODEL}",
        )
    known = suggestion(name, sorted(models)) if models else "no model is installed yet (halebrain models import)"
    raise MissingInputError(
        "a model must be a bundle folder, a zip, or a name", received=repr(str(model)), remedy=known
    )


def load_model(model: Path | str | None = None) -> "Bundle":
    """Return a model, checked to the byte and ready to run.

    Args:
        model: Bundle folder, zip, or a name (`halebrain models list`); `None` = the default model.

    Raises:
        MissingInputError: It is neither.
        UnavailableError: None is given, and there is no default one.
        DataError: It is damaged.
        ConfigError: Its configuration is not one that this version understands.
    """
    from halebrain.models.bundle import load_bundle

    return load_bundle(find_model(model))


def import_model(source: Path, name: str | None = None, *, overwrite: bool = False) -> StoredModel:
    """Check a bundle folder or zip and keep it under a name; `None` = as the folder or zip is named."""
    from halebrain.models.bundle import load_bundle
    from halebrain.models.bundle_files import checked_files, name_of

    home = halebrain_home()
    if home is None:
        raise UnavailableError(
            "imported models need a folder",
            received="a user without a home folder",
            remedy=f"set the environment variable {VARIABLE} to a folder",
        )
    load_bundle(source)  # every hash, and every weight in its place
    new_name = name or name_of(source)
    if not new_name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise UsageError(
            "a model's name takes letters, digits, '-', '_' and '.'",
            received=repr(new_name),
            remedy="choose another --name",
        )
    path = home / "models" / f"{new_name}.zip"
    if not is_writable(path.parent):
        raise CannotWriteError(
            "the folder of imported models must be writable",
            where=path.parent,
            remedy=f"set the environment variable {VARIABLE} to another folder",
        )
    # The hash of a model leaves out its thresholds: another calibration is another model here.
    if path.exists() and not overwrite and checked_files(path)[0] != checked_files(source)[0]:
        raise CannotWriteError(
            "a model name must be unique", received=new_name, where=path, remedy="choose --name, or --overwrite"
        )
    export_model(source, path, overwrite=True)
    return StoredModel(new_name, path, "imported")


def export_model(source: Path, path: Path, *, overwrite: bool = False) -> None:
    """Check a bundle and write it as one zip; the same bundle gives the same bytes."""
    from halebrain.models.bundle_files import checked_files

    if path.exists() and not overwrite:
        raise CannotWriteError("the output must not exist yet", where=path, remedy="choose another or --overwrite")
    parts, _ = checked_files(source)
    if path.suffix != ".zip":
        raise DataError("a model is exported as a zip", received=path.name, remedy="name it NAME.zip")
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(parts):
            entry = zipfile.ZipInfo(name, _ZIP_TIME)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, parts[name])


def convert_fp16(source: Path, path: Path, *, overwrite: bool = False) -> str:
    """Write a bundle folder with weights of 16 bits, half the size, and return its hash.

    Its thresholds and figures are left out: they belong to scores of the other weights.
    """
    from halebrain.models.bundle import load_bundle, save_bundle
    from halebrain.models.card import model_card

    bundle = load_bundle(source).with_other_scores()
    return save_bundle(bundle, path, card=model_card(bundle), overwrite=overwrite, half=True)
