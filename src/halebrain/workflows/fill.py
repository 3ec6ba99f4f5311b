"""Lesion filling with files: the filled scan and its sidecar alone, for other software."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halebrain.core.document import read_object
from halebrain.core.errors import CannotWriteError, cannot_write_into
from halebrain.core.failures import Failures
from halebrain.core.files import atomic_path
from halebrain.core.leftovers import sweep
from halebrain.core.provenance import Provenance
from halebrain.inference.outputs import OutputNames, filled_files
from halebrain.inference.scans import ScanInput, find_scans
from halebrain.workflows.detect import describe_scan
from halebrain.workflows.detections import Detections, Place, Run, run_items
from halebrain.workflows.detector import Detector, find_anomalies
from halebrain.workflows.scan_steps import ScanSteps, begin_scan
from halebrain.workflows.settings import DetectSettings

_SETTINGS = ("threshold", "grow_to", "modality", "min_lesion_mm3", "brain")
"""Settings that the sidecar states as they were given, besides what the provenance states."""


@dataclass(frozen=True)
class FilledScan:
    """The files of one filled scan, and what they say.

    Args:
        scan: Name of the scan.
        folder: Where the files are.
        filled: The lesion-filled scan.
        sidecar: What was filled, and how.
        filled_ml: Volume that was filled; 0 = the filled scan is the scan itself.
        flags: Quality flags.
    """

    scan: str
    folder: Path
    filled: Path
    sidecar: Path
    filled_ml: float
    flags: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object; paths stay paths."""
        return vars(self) | {"flags": list(self.flags)}


def fill_scans(
    source: Path,
    output: Path,
    settings: DetectSettings,
    *,
    brain_mask: Path | None = None,
    fill_mask: Path | None = None,
    done: Callable[[FilledScan], None] = lambda _: None,
) -> Detections[FilledScan]:
    """Write the lesion-filled scan of every scan of an input; one that fails does not stop the others.

    Args:
        source: A scan, a folder, a BIDS data set, a list, or a manifest.
        output: Output folder.
        settings: How, with `fill`.
        brain_mask: Brain mask of a single scan.
        fill_mask: What is filled in a single scan; `None` = what is found.
        done: Called after each scan.

    Raises:
        HalebrainError: Input, model or a setting cannot be used, or the only scan failed.
    """
    scans = find_scans(source, brain_mask=brain_mask, fill_mask=fill_mask)
    dataset = None if scans[0].in_dataset is None else source
    single = len(scans) == 1 and (scans[0].image == source or not source.is_dir())
    run = Run(output, settings, Failures(output, settings.notify), dataset=dataset, single=single)
    return run_items(scans, _fill_one, run, description="Filling", with_index=False, done=done)


def _fill_one(place: Place, scan: ScanInput) -> FilledScan:
    """Fill one scan in its folder below that of the run."""
    detector = place.detector
    steps = None if place.bar is None else begin_scan(place.bar, scan, detector.predictor, named=place.named)
    return fill_scan(detector, scan, place.folder(scan.folder), steps=steps)


def fill_scan(detector: Detector, scan: ScanInput, folder: Path, *, steps: ScanSteps | None = None) -> FilledScan:
    """Fill one scan and write it with its sidecar; finished ones with the same settings are kept, others refused."""
    scan.check()
    names = OutputNames(folder, scan.name)
    sweep(folder)
    requested = describe_scan(detector, scan)
    asked = _asked(detector, requested)
    if names.filled_sidecar.exists() and not detector.settings.overwrite:
        stated = read_object(names.filled_sidecar, "the sidecar of a filled scan", "use --overwrite, or remove it")
        if stated.get("Requested") != asked:
            raise CannotWriteError(
                "a filled scan made with other settings exists", where=folder, remedy="choose another or --overwrite"
            )
        if names.filled.exists():
            return _stated(names, stated)
    found = find_anomalies(detector, scan, requested, steps=steps)
    if found.filling is None:
        raise ValueError("the detector must fill")
    sidecar = names.filled_sidecar
    files = filled_files(names, found.made, found.filling)
    stated = json.loads(files[sidecar]) | {"Requested": asked}
    files[sidecar] = (json.dumps(stated, indent=2) + "\n").encode("utf-8")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sidecar.unlink(missing_ok=True)  # it is written last: with it, the scan is complete
    except OSError as error:
        raise cannot_write_into(folder, error) from error
    for path, content in files.items():
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    for flag in found.made.qc.flags:
        detector.settings.notify(f"warning: {scan.name}: {flag}")
    return _stated(names, stated)


def _asked(detector: Detector, requested: Provenance) -> dict[str, Any]:
    """Return what a filled scan depends on, as its sidecar states it."""
    names = ("input_sha256", "brain_mask_sha256", "fill_mask_sha256", "fill_margin_mm", "model_sha256", "seed", "draws")
    stated = {name: getattr(requested, name) for name in names} | {"levels": list(requested.levels)}
    return stated | {name: getattr(detector.settings, name) for name in _SETTINGS}


def _stated(names: OutputNames, sidecar: dict[str, Any]) -> FilledScan:
    return FilledScan(
        scan=names.stem,
        folder=names.folder,
        filled=names.filled,
        sidecar=names.filled_sidecar,
        filled_ml=float(sidecar["FilledVolumeMl"]),
        flags=tuple(sidecar["QualityFlags"]),
    )
