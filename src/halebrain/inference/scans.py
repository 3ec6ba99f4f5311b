"""Many scans through one model: the scans of an input, and their scores one by one."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from halebrain.core.errors import DataError, MissingInputError, UsageError
from halebrain.core.modality import modality_of_scan
from halebrain.core.types import FloatArray, MaskArray, ScanResult, Volume
from halebrain.core.wording import counted, printable
from halebrain.inference.predictor import Predictor, WorkingMaps
from halebrain.io.bids import SUFFIXES as BIDS_SUFFIXES
from halebrain.io.discovery import Found, is_bids, scans_in
from halebrain.io.files import check_link, check_present, split_selection
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.stored import StoredScan
from halebrain.io.tables import is_list, is_table, read_lines
from halebrain.io.tree import LeftOut, check_name, summed_left_out
from halebrain.io.volume import SUFFIXES, read_healthy, read_mask, read_volume, stem_of
from halebrain.preprocessing.pipeline import Preprocessor, WorkingScan
from halebrain.preprocessing.prepared import open_record
from halebrain.preprocessing.quality.rules import check_contrast_label

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage

PathLike = str | os.PathLike[str]
_LONGEST_NAME = 207
"""Bytes of a name: a file system takes 255, and a result adds up to 48 ("_desc-pseudohealthy_image.nii.gz")."""
_HEALTHY_WITH_LESION = "declared healthy, though its lesion mask marks {}, which do not count"
_IN_MEMORY = "image"
"""Name of a scan in memory."""


@dataclass(frozen=True, eq=False)
class ImageInMemory:
    """A nibabel image that was given in the place of a file, and the scan that it holds."""

    image: "SpatialImage"
    volume: Volume


@dataclass(frozen=True)
class ScanInput:
    """One scan to process.

    Args:
        image: The file or the DICOM folder; no file where the scan is in memory.
        name: Name of its results.
        brain_mask: Mask on its grid, a file or a nibabel image; `None` = extract the brain.
        space: "native", or the template's name.
        modality: Contrast from the manifest; `None` without a manifest.
        in_dataset: Its path in the BIDS data set that it belongs to; `None` where it is in none.
        root: The folder that it was found in, which no link may lead out of; `None` where it was named itself.
        fill_mask: Mask on its grid that is filled, as `brain_mask`; `None` = what is found.
        memory: The image that it was given as; `None` = it is read from `image`.
        twin: Another file of the same name and folder, of which only one could have results; `None` = there is none.
    """

    image: Path
    name: str
    brain_mask: "Path | SpatialImage | None" = None
    space: str = "native"
    modality: str | None = None
    in_dataset: Path | None = None
    root: Path | None = None
    fill_mask: "Path | SpatialImage | None" = None
    memory: ImageInMemory | None = None
    twin: Path | None = None

    @property
    def file(self) -> Path | None:
        """The file or the DICOM folder; `None` where the scan is in memory."""
        return self.image if self.memory is None else None

    def read(self) -> Volume:
        """Return the scan on its own grid."""
        return read_volume(self.image) if self.memory is None else self.memory.volume

    def stored(self, volume: Volume) -> StoredScan:
        """Return its stored form; `volume` is what `read` returned."""
        return StoredScan.of(volume, self.image if self.memory is None else self.memory.image)

    @property
    def folder(self) -> Path:
        """Folder of its results below that of a run: as in its BIDS data set, else its name."""
        return Path(self.name) if self.in_dataset is None else self.in_dataset.parent

    @property
    def named(self) -> str:
        """The name that its contrast is read from: without its folders where those state another (`T1/P1_FLAIR`)."""
        own = stem_of(self.image)
        return own if self.name.endswith(f"_{own}") and modality_of_scan(self.name) is None else self.name

    def check(self) -> None:
        """Refuse a file that must not or cannot be read, or whose results would be another's.

        That is a name no UTF-8 or too long, a link out of its folder or to nothing, or a second file of the same name.
        """
        if self.memory is not None:
            return
        if (size := len(self.name.encode("utf-8", "surrogateescape"))) > _LONGEST_NAME:
            raise DataError(
                f"the name of a scan may have {_LONGEST_NAME} bytes, as those of its results are longer",
                received=f"{size} bytes",
                where=self.image,
                remedy="give the file a shorter name",
            )
        if self.twin is not None:
            raise _same_name(self.image, self.twin, where=self.image.parent)
        check_name(self.image)
        if self.root is not None and self.image.is_symlink():
            check_link(self.image, self.root)
        check_present(split_selection(self.image)[0])


@dataclass(frozen=True)
class ScoredScan:
    """One row of a manifest with the maps of the model."""

    record: ScanRecord
    volume: Volume
    lesion: MaskArray | None
    result: ScanResult
    scan: WorkingScan
    maps: WorkingMaps

    def lesion_working(self) -> MaskArray:
        """Return the annotated lesion on the working grid; all false where there is none."""
        if self.lesion is None:
            return np.zeros_like(self.scan.brain_mask)
        return self.scan.mask_from_native(self.lesion)

    def quality_flags(self) -> tuple[str, ...]:
        """Return what detection would flag in the scan itself, whatever the model."""
        return check_contrast_label(self.scan.qc.noting(self.volume.notes), self.record.contrast).flags

    def healthy_working(self) -> FloatArray | None:
        """Return the true healthy image as the networks would see it, in [0, 1]; `None` where it is not known."""
        if self.record.healthy is None:
            return None
        return self.scan.image_from_native(read_healthy(self.record.healthy, self.volume))


@dataclass(frozen=True)
class AnnotatedScan:
    """A scan on the working grid with its annotated lesion, bool `(i, j, k)`; all false for a healthy scan."""

    record: ScanRecord
    scan: WorkingScan
    lesion: MaskArray

    @property
    def region(self) -> MaskArray:
        """Voxels that count: the brain, and lesion outside its mask, which counts as missed."""
        return self.scan.brain_mask | self.lesion

    @property
    def labels(self) -> MaskArray:
        """The lesion over the voxels that count, `(m,)`."""
        labels: MaskArray = self.lesion[self.region]
        return labels


def given_scan(
    image: "SpatialImage | PathLike",
    *,
    brain_mask: "SpatialImage | PathLike | None" = None,
    fill_mask: "SpatialImage | PathLike | None" = None,
    modality: str | None = None,
) -> ScanInput:
    """Return a scan that was given in Python; an image in memory is checked as a file is on reading.

    Raises:
        UsageError: Something is neither a path nor a nibabel image.
        DataError: The image cannot be used.
    """
    source = _path_or_image(image)
    brain, filled = (None if given is None else _path_or_image(given) for given in (brain_mask, fill_mask))
    path, memory = source, None
    if not isinstance(path, Path):
        path, memory = Path(_IN_MEMORY), ImageInMemory(path, read_volume(path))
    return ScanInput(path, stem_of(path), brain_mask=brain, fill_mask=filled, modality=modality, memory=memory)


def _path_or_image(given: "SpatialImage | PathLike") -> "Path | SpatialImage":
    if isinstance(given, str | os.PathLike):
        return Path(given)
    if not hasattr(given, "dataobj"):
        raise UsageError(
            "an image must be a path or a nibabel image",
            received=type(given).__name__,
            remedy="pass nibabel.load(path), or the path",
        )
    return given


def open_annotated(preprocessor: Preprocessor, record: ScanRecord) -> AnnotatedScan:
    """Return one scan of a manifest on the working grid, with its lesion."""
    volume, scan = open_record(preprocessor, record)
    lesion = np.zeros_like(scan.brain_mask)
    if record.lesion is not None and record.is_annotated:
        lesion = scan.mask_from_native(read_mask(record.lesion, volume))
    return AnnotatedScan(record, scan, lesion)


def find_scans(source: Path, *, brain_mask: Path | None = None, fill_mask: Path | None = None) -> Found[ScanInput]:
    """Return the scans of an input and the left-out images; broken scans fail separately.

    Args:
        source: One file of any known format, a DICOM folder or archive (`PATH#NUMBER` for one series of several), a
            folder of scans, a BIDS data set, a text list of paths, or a manifest.
        brain_mask: Mask of the scan, where the input is a single one.
        fill_mask: What is filled, where the input is a single one.

    Raises:
        MissingInputError: There is nothing, or no scan in it.
        DataError: A manifest or a list is no text, or all there is is one DICOM series in two folders.
        UsageError: A mask is given for several scans, or two scans of a list or a manifest would share a name. In a
            folder, files of one name are one scan that fails.
    """
    place, series = split_selection(source)
    if not place.exists():
        raise MissingInputError("the input must exist", where=source, remedy="check the path given")
    left_out: tuple[LeftOut, ...] = ()
    if series is None and place.is_dir():
        found = scans_in(source)
        left_out = found.left_out
        if is_bids(place):
            scans = bids_scans(found, source)
        else:
            scans = _joined(ScanInput(path, name, root=source) for path, name in _named(found, source))
    elif series is None and is_table(source):
        scans = [scan_of_record(record) for record in Manifest.read(source)]
    elif series is None and is_list(source):
        scans = [ScanInput(path, stem_of(path)) for path in _listed(source)]
    else:
        scans = [ScanInput(source, stem_of(source))]
    if not scans and series is None and is_bids(place):
        raise MissingInputError(
            f"a BIDS data set must hold scans named sub-X_…_{', '.join(BIDS_SUFFIXES)}",
            received=summed_left_out(left_out),
            where=source,
            remedy="rename them, or remove dataset_description.json to use it as a plain folder of scans",
        )
    if not scans:
        raise MissingInputError(
            "the input must hold at least one scan",
            received=summed_left_out(left_out),
            where=source,
            remedy=f"give {', '.join(SUFFIXES)} or DICOM folders",
        )
    scans = _masked(scans, source, brain_mask=brain_mask, fill_mask=fill_mask)
    check_names(scans, source)
    return Found(scans, left_out)


def _masked(
    scans: list[ScanInput], source: Path, *, brain_mask: Path | None, fill_mask: Path | None
) -> list[ScanInput]:
    """Return the scans, a single one with its masks."""
    option, remedy = ("--brain-mask", "give the masks in a manifest")
    if brain_mask is None:
        option, remedy = ("--fill-mask", "run the command for each scan")
        if fill_mask is None:
            return scans
    if len(scans) > 1 or scans[0].image != source:
        raise UsageError(f"{option} can be used with a single scan only", where=source, remedy=remedy)
    return [replace(scans[0], brain_mask=brain_mask or scans[0].brain_mask, fill_mask=fill_mask)]


def scan_of_record(record: ScanRecord) -> ScanInput:
    """Return a row of a manifest as a scan to process."""
    return ScanInput(record.image, record.scan_id, record.brain_mask, record.space, record.modality)


def bids_scans(images: Iterable[Path], dataset: Path) -> list[ScanInput]:
    """Return scans of a BIDS data set; files of one name are one scan that fails."""
    return _joined(
        ScanInput(image, printable(stem_of(image)), in_dataset=image.relative_to(dataset), root=dataset)
        for image in images
    )


def _named(images: Iterable[Path], folder: Path) -> list[tuple[Path, str]]:
    """Return a unique name for each image: its file name, with its folders if that is taken."""
    named = [(path, printable(stem_of(path))) for path in images]
    taken = Counter(name for _, name in named)
    return [(path, name if taken[name] == 1 else _with_folders(path, name, folder)) for path, name in named]


def _with_folders(path: Path, name: str, folder: Path) -> str:
    return "_".join((*map(printable, path.relative_to(folder).parent.parts), name))


def _listed(source: Path) -> list[Path]:
    return [source.parent / line for line in read_lines(source, what="a list of scans")]


def check_names(scans: Iterable[ScanInput], source: Path) -> None:
    """Refuse scans of a list or a manifest that share a name, as one would take the place of the other's results."""
    seen: dict[tuple[Path, str], Path] = {}
    for scan in scans:
        key = scan.folder, scan.name
        if key in seen:
            raise _same_name(seen[key], scan.image, where=source)
        seen[key] = scan.image


def _joined(scans: Iterable[ScanInput]) -> list[ScanInput]:
    """Return scans of a folder, those that share name and folder of results as one that fails: neither is preferred."""
    joined: dict[tuple[Path, str], ScanInput] = {}
    for scan in scans:
        key = scan.folder, scan.name
        first = joined.get(key)
        joined[key] = scan if first is None else replace(first, twin=scan.image)
    return list(joined.values())


def _same_name(one: Path, other: Path, *, where: Path) -> UsageError:
    return UsageError(
        "scans need different names",
        received=f"{printable(stem_of(one))} for '{one.name}' and '{other.name}'",
        where=where,
        remedy="remove or rename one, or use a manifest",
    )


def score_scan(predictor: Predictor, record: ScanRecord) -> ScoredScan:
    """Return one scan of a manifest with its maps; the mask of a healthy scan does not count."""
    volume, scan = open_record(predictor.preprocessor, record)
    lesion = None if record.lesion is None else read_mask(record.lesion, volume)
    if record.is_healthy and lesion is not None:
        if marked := int(lesion.sum()):
            volume = replace(volume, notes=(*volume.notes, _HEALTHY_WITH_LESION.format(counted(marked, "voxel"))))
        lesion = None
    result, maps = predictor.predict_scan(volume, scan, record.contrast)
    return ScoredScan(record, volume, lesion, result, scan, maps)
