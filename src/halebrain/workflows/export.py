"""Export: the scans of a manifest as a data set of nnU-Net."""

from dataclasses import dataclass
from pathlib import Path

from halebrain.core.config import parse_config
from halebrain.core.errors import UsageError
from halebrain.data import nnunet
from halebrain.io.manifest import SPLITS, Manifest
from halebrain.models.store import load_model
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor
from halebrain.workflows.settings import ExportSettings


@dataclass(frozen=True)
class Exported:
    """An exported data set.

    Args:
        folder: `DatasetNNN_NAME`.
        modalities: Its channels, in order.
        cases: Its cases.
        splits: Its split into training and validation; `None` = nnU-Net draws its own.
    """

    folder: Path
    modalities: tuple[str, ...]
    cases: list[nnunet.NnunetCase]
    splits: Path | None


def export_nnunet(manifest: Path, output: Path, settings: ExportSettings) -> Exported:
    """Write the annotated and healthy scans of a manifest as a data set of nnU-Net.

    Args:
        manifest: Table of scans.
        output: Parent folder of the data set.
        settings: What it is called, and what it holds.

    Raises:
        HalebrainError: A scan, the model or a setting cannot be used, or the data set exists.
    """
    folder = output / nnunet.dataset_name(settings.dataset_id, settings.name)
    for wanted in settings.splits:
        if wanted not in SPLITS:
            raise UsageError(
                "--split takes train, val or test",
                received=repr(wanted),
                remedy="for example --split train --split val",
            )
    rows = Manifest.read(manifest).select(lambda r: not settings.splits or r.split in settings.splits)
    modalities, cases = nnunet.find_cases(rows, settings.modalities)
    preprocessor = None
    if settings.grid == "working":
        own = {} if settings.model is None else load_model(settings.model).config.preprocessing
        preprocessor = Preprocessor(parse_config(PreprocessingConfig, own, where=settings.model or "defaults"))
    elif settings.model is not None:
        raise UsageError("--model needs --grid working", remedy="remove one of them")
    nnunet.export_nnunet(cases, modalities, folder, preprocessor=preprocessor)
    splits = folder / nnunet.SPLITS_FILE
    return Exported(folder, modalities, cases, splits if splits.is_file() else None)
