"""Lesion filling with files: the filled scan and its sidecar alone, for other software."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halebrain.core.device import find_device
from halebrain.core.document import read_object
from halebrain.core.errors import CannotWriteError, HalebrainError, cannot_write_into, unexpected_as_error
from halebrain.core.failures import Failures
from halebrain.core.files import atomic_path
from halebrain.core.leftovers import sweep
from halebrain.core.progress import ProgressBar
from halebrain.core.provenance import Provenance
from halebrain.inference.outputs import OutputNames, filled_files
from halebrain.inference.scans import ScanInput, find_scans
from halebrain.io.bids_derivative import begin_derivative, write_participants
from halebrain.io.failed_table import FAILED, write_failed
from halebrain.io.tree import LeftOut, summed_left_out
from halebrain.workflows.detect import describe_scan
from halebrain.workflows.detector import Detector, find_anomalies, load_detector
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


@dataclass(frozen=True)
class FilledScans:
    """Filled scans of an input.

    Args:
        scans: Those that were filled, now or before.
        left_out: Images of the input that are not used.
        failures: Scans that failed, with the reason.
        n_scans: Scans of the input.
    """

    scans: list[FilledScan]
    left_out: tuple[LeftOut, ...]
    failures: Failures
    n_scans: int


def fill_scans(
    source: Path,
    output: Path,
    settings: DetectSettings,
    *,
    brain_mask: Path | None = None,
    fill_mask: Path | None = None,
    done: Callable[[FilledScan], None] = lambda _: None,
) -> FilledScans:
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
    if line := summed_left_out(scans.left_out):
        settings.notify(f"warning: {line}")
    find_device(settings.device)
    detector = load_detector(settings)
    dataset = None if scans[0].in_dataset is None else source
    single = len(scans) == 1 and (scans[0].image == source or not source.is_dir())
    if dataset is not None:
        begin_derivative(output, dataset)
    failures, filled = Failures(output, settings.notify), list[FilledScan]()
    with ProgressBar("Filling", len(scans)) as bar:
        for count, scan in enumerate(scans, start=1):
            place = scan.name if scan.in_dataset is None else scan.in_dataset.parent
            steps = begin_scan(bar, scan, detector.predictor, named=len(scans) > 1)
            try:
                with unexpected_as_error():
                    filled.append(fill_scan(detector, scan, output if single else output / place, steps=steps))
            except HalebrainError as error:
                if single:
                    raise
                failures.add(scan.name, error)
            else:
                failures.went_well(scan.name)
                done(filled[-1])
            bar.reach(count)
    if dataset is not None:
        write_participants(output, dataset)
    if failures.reasons or (output / FAILED).exists():
        write_failed(output / FAILED, failures.reasons)
    return FilledScans(filled, scans.left_out, failures, len(scans))


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
