"""Anatomies from real healthy T1 brains, segmented into tissues: real cortex, ventricles and atrophy."""

import logging
from pathlib import Path

from halebrain.core.errors import DataError, MissingInputError, UsageError
from halebrain.core.modality import guess_modality, modality_of_scan, split_name
from halebrain.core.types import FloatArray
from halebrain.io.discovery import is_bids, scans_in
from halebrain.io.manifest import Manifest
from halebrain.io.tree import label, summed_left_out
from halebrain.io.volume import read_volume, stem_of
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor
from halebrain.simulation.anatomy import template_tissues
from halebrain.simulation.anatomy_source import ANATOMY_SOURCES, AnatomySource
from halebrain.simulation.fields import Shape
from halebrain.simulation.tissue_em import segment_t1

_log = logging.getLogger(__name__)


@ANATOMY_SOURCES.register("t1")
class T1Anatomies(AnatomySource):
    """Reads the T1 scans of a manifest (in the split "train" or in none, and no patient's) or of a folder."""

    def files(self, place: Path | Manifest) -> list[tuple[str, Path]]:
        """Return every T1; those of other splits, of patients and of other contrasts are left out."""
        if isinstance(place, Manifest) or place.is_file():
            table = place if isinstance(place, Manifest) else Manifest.read(place)
            rows = [
                row
                for row in table
                if guess_modality(row.modality) == "T1w"
                and row.split in (None, "train")
                and row.pathology in (None, "healthy")
                and not row.is_annotated
            ]
            found = [(label(row.scan_id), row.image) for row in rows]
        elif is_bids(place):
            raise UsageError(
                "the T1 scans of a BIDS data set come as a manifest, which says who is healthy",
                received=place,
                remedy="read it with bids_manifest first",
            )
        elif place.is_dir():
            found_in = scans_in(place)
            if line := summed_left_out(found_in.left_out):
                _log.warning(line)
            # A name that states several contrasts is no T1's, as a name without any may be.
            said = {path: (modality_of_scan(stem_of(path)), split_name(stem_of(path))[0]) for path in found_in}
            scans = [path for path, names in said.items() if names[0] == "T1w" or names == (None, None)]
            found = [(label(stem_of(path)), path) for path in scans]
        else:
            raise MissingInputError(
                "T1 scans must be in a manifest or a folder", where=place, remedy="check the path given"
            )
        if not found:
            raise MissingInputError(
                "anatomies need at least one healthy T1 scan",
                where=place.source if isinstance(place, Manifest) else place,
                remedy='write T1w under "modality" and healthy under "pathology", or give another folder',
            )
        return found

    def read(self, path: Path, *, shape: Shape, spacing_mm: float) -> FloatArray:
        """Preprocess one scan and segment it; refuse one without a usable brain, or that is no T1."""
        config = PreprocessingConfig(shape=shape, spacing_mm=spacing_mm, brain="auto")
        volume = read_volume(path)
        scan = Preprocessor(config).run(volume)
        if scan.qc.registration_failed:
            raise DataError("an anatomy must register to the template", where=path, remedy="remove it")
        atlas = template_tissues(shape, spacing_mm)
        try:
            return segment_t1(scan.image, scan.brain_mask, atlas, spacing_mm=spacing_mm).tissues
        except DataError as error:
            raise DataError(error.rule, received=error.received, where=path, remedy=error.remedy) from error
