"""Anatomies from real healthy T1 brains, segmented into tissues: real cortex, ventricles and atrophy."""

import logging
from pathlib import Path

from halebrain.core.errors import DataError, MissingInputError, UsageError
from halebrain.core.modality import guess_modality, modality_of_scan, split_name
from halebrain.core.types import FloatArray
from halebrain.core.wording import counted
from halebrain.io.discovery import is_bids, scans_in
from halebrain.io.manifest import HEALTHY, Manifest, ScanRecord
from halebrain.io.tree import LeftOut, label, summed_left_out
from halebrain.io.volume import read_mask, read_volume, stem_of
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor
from halebrain.simulation.anatomy import template_tissues
from halebrain.simulation.anatomy_source import ANATOMY_SOURCES, AnatomyFile, AnatomySource
from halebrain.simulation.fields import Shape
from halebrain.simulation.tissue_em import segment_t1

_log = logging.getLogger(__name__)
_OTHER_CONTRAST = "of a contrast other than T1w"


@ANATOMY_SOURCES.register("t1")
class T1Anatomies(AnatomySource):
    """Reads the T1 scans of a manifest (in the split "train" or in none, and no patient's) or of a folder."""

    def files(self, place: Path | Manifest) -> list[AnatomyFile]:
        """Return every T1; those of other splits, of patients and of other contrasts are left out, with their count."""
        left_out: list[LeftOut] = []
        if isinstance(place, Manifest) or place.is_file():
            table = place if isinstance(place, Manifest) else Manifest.read(place)
            found, unstated = [], 0
            for row in table:
                if (reason := _unfit(row)) is not None:
                    left_out.append(LeftOut(row.scan_id, reason))
                else:
                    found.append(AnatomyFile(label(row.scan_id), row.image, row.brain_mask, row.space))
                    unstated += row.pathology is None
            if unstated:
                _log.warning("%s without a word on health taken as healthy", counted(unstated, "T1 scan"))
        elif is_bids(place):
            raise UsageError(
                "the T1 scans of a BIDS data set come as a manifest, which says who is healthy",
                received=place,
                remedy="read it with bids_manifest first",
            )
        elif place.is_dir():
            found_in = scans_in(place)
            # A name that states several contrasts is no T1's, as a name without any may be.
            said = {path: (modality_of_scan(stem_of(path)), split_name(stem_of(path))[0]) for path in found_in}
            scans = [path for path, names in said.items() if names[0] == "T1w" or names == (None, None)]
            inside = place.absolute()
            others = [path.absolute().relative_to(inside).as_posix() for path in found_in if path not in scans]
            left_out = [*found_in.left_out, *(LeftOut(name, _OTHER_CONTRAST) for name in others)]
            found = [AnatomyFile(label(stem_of(path)), path) for path in scans]
        else:
            raise MissingInputError(
                "T1 scans must be in a manifest or a folder", where=place, remedy="check the path given"
            )
        if line := summed_left_out(left_out):
            _log.warning(line)
        if not found:
            raise MissingInputError(
                "anatomies need at least one healthy T1 scan",
                where=place.source if isinstance(place, Manifest) else place,
                remedy='write T1w under "modality" and healthy under "pathology", or give another folder',
            )
        return found

    def read(self, file: AnatomyFile, *, shape: Shape, spacing_mm: float) -> FloatArray:
        """Preprocess one scan, with its own brain mask where there is one, and segment it.

        A scan without a usable brain, or that is no T1, is refused.
        """
        config, path = PreprocessingConfig(shape=shape, spacing_mm=spacing_mm, brain="auto"), file.image
        volume = read_volume(path)
        mask = None if file.brain_mask is None else read_mask(file.brain_mask, volume)
        scan = Preprocessor(config).run(volume, brain_mask=mask, space=file.space)
        if scan.qc.registration_failed:
            raise DataError("an anatomy must register to the template", where=path, remedy="remove it")
        atlas = template_tissues(shape, spacing_mm)
        try:
            return segment_t1(scan.image, scan.brain_mask, atlas, spacing_mm=spacing_mm).tissues
        except DataError as error:
            raise DataError(error.rule, received=error.received, where=path, remedy=error.remedy) from error


def _unfit(row: ScanRecord) -> str | None:
    """Return why a scan of a manifest is no healthy anatomy to learn from; `None` where it is one."""
    if guess_modality(row.modality) != "T1w":
        return _OTHER_CONTRAST
    if row.split not in (None, "train"):
        return f'in the split "{row.split}"'
    if row.pathology not in (None, HEALTHY):
        return "of patients"
    return "with annotated lesions" if row.is_annotated else None
