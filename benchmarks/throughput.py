"""What the scheduler brings: scans an hour with one and two workers, and what a cohort of thousands costs besides.

    python benchmarks/throughput.py workers -i FOLDER_OR_LIST
    python benchmarks/throughput.py cohort --scans 24000 --work DIR

`workers` runs `halebrain detect` on the same scans: one after the other with two threads, with one worker of one
thread, and with two workers of one thread each. The ratio of the last to the first is what the second process brings
on the same two cores. Memory is the highest resident set of each process. Run it where nothing else computes; the load
before and after each run is printed.

`cohort` runs `run_scans` on the rows of a manifest with stubs in place of networks and pages: they write the promised
files of a scan, nearly empty, and their own time is taken off. What is left is what the scheduler costs: listing,
hashing of (small) files, comparison with earlier results, messages, records of failures, and the page of all scans. It
is told as CPU time of the process, which other programs on the machine change less than the clock.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from halebrain.core.failures import Failures
from halebrain.core.modality import find_contrast
from halebrain.core.progress import SETTINGS
from halebrain.core.provenance import QualityReport
from halebrain.inference.outputs import OutputNames
from halebrain.inference.scans import find_scans
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.workflows import detect
from halebrain.workflows.detections import Run
from halebrain.workflows.settings import DetectSettings

_FLAGS = ("thick slices (6.0 mm): small lesions are hard to see", "low contrast between grey and white matter")
_RUNS = {
    "one after the other, 2 threads": ("--threads", "2"),
    "1 worker, 1 thread": ("--workers", "1", "--threads", "1"),
    "2 workers, 1 thread each": ("--workers", "2", "--threads", "1"),
}


def measure_workers(source: Path, model: Path | None, work: Path) -> None:
    """Print scans an hour and memory of each way to run `detect`."""
    count, rates = len(find_scans(source)), dict[str, float]()
    print(f"| {count} scans | s | scans an hour | MiB, highest process | MiB, all at once | load before, after |")
    print("|---|---|---|---|---|---|")
    for number, (name, options) in enumerate(_RUNS.items()):
        words = ["detect", "-i", source, "-o", work / str(number), *options, "--no-progress", "--json"]
        words += [] if model is None else ["-m", model]
        before, start = os.getloadavg()[0], time.perf_counter()
        program = "from halebrain.cli.main import main; main()"
        with subprocess.Popen([sys.executable, "-c", program, *map(str, words)], stdout=subprocess.DEVNULL) as process:
            highest, together = watch_memory(process)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise SystemExit(f"detect ended with {process.returncode}")
        rates[name] = 3600 * count / seconds
        row = f"| {name} | {seconds:.1f} | {rates[name]:.0f} | {highest:.0f} | {together:.0f}"
        print(f"{row} | {before:.1f}, {os.getloadavg()[0]:.1f} |", flush=True)
    first, *_, last = rates.values()
    print(f"\nTwo workers of one thread against one of two threads: {last / first:.2f} × the scans an hour.")


def watch_memory(process: "subprocess.Popen[bytes]") -> tuple[float, float]:
    """Return the highest resident set of a process and its descendants, of one and of all at once, MiB."""
    highest = together = 0.0
    while process.poll() is None:
        sizes = [resident_mib(pid) for pid in family(process.pid)]
        highest, together = max([highest, *sizes]), max(together, sum(sizes))
        time.sleep(0.2)
    return highest, together


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue
    return found


def resident_mib(pid: int) -> float:
    """Return the resident set of a process; 0 of one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)


class Stub:
    """Stands in for networks and pages: writes the promised files of a scan, and keeps its own time."""

    def __init__(self) -> None:
        self.seconds, self.number, self.rss = 0.0, 0, list[float]()

    def find(self, detector: Any, scan: Any, requested: Any, *, steps: Any) -> Any:
        """Return the provenance of a scan in place of what was found in it."""
        start, self.number = time.process_time(), self.number + 1
        contrast = find_contrast(detector.settings.modality, scan.modality, scan.name, None)
        score = (self.number * 7919 % 1000) / 1000
        made = replace(
            requested,
            threshold=detector.threshold(contrast),
            qc=QualityReport(flags=_FLAGS[: self.number % 3]),
            n_lesions=self.number % 5,
            lesion_volume_ml=score * 10,
            scan_score=score,
            seconds=0.0,
        )
        self.seconds += time.process_time() - start
        return detector.placed(made, contrast, score)

    def write(self, made: Any, names: OutputNames, *, image: Path) -> Any:
        """Write the promised files, the provenance as it is and the others empty."""
        begun = time.process_time()
        names.folder.mkdir(parents=True, exist_ok=True)
        for path in names.promised(dicom_seg=False, filled=False):
            path.touch()
        names.provenance.write_text(json.dumps(made.to_json()))
        if self.number % 1000 == 0:
            self.rss.append(resident_mib(os.getpid()))
        self.seconds += time.process_time() - begun
        return detect.DetectedScan.of(names, made)


def measure_cohort(count: int, work: Path) -> None:
    """Print what a simulated cohort costs besides its networks, and its resume."""
    SETTINGS.enabled = False
    (work / "in").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        subject, modality = f"{number:05d}", ("T1w", "T2w", "FLAIR")[number % 3]
        image = work / "in" / f"sub-{subject}_{modality}.nii.gz"
        image.write_bytes(subject.encode())
        rows.append(ScanRecord(subject=subject, image=image, modality=modality))
    Manifest(tuple(rows)).write(work / "manifest.tsv")
    del rows
    stub = Stub()
    detect.find_anomalies, detect.write_found = stub.find, stub.write  # type: ignore[assignment]
    settings = DetectSettings(device="cpu", notify=lambda _: None)
    for name in ("first run", "resume of the finished cohort"):
        stub.seconds, stub.rss, start, clock = 0.0, [], time.process_time(), time.perf_counter()
        scans = find_scans(work / "manifest.tsv")
        output = work / "out"
        found = detect.run_scans(scans, Run(output, settings, Failures(output, settings.notify)))
        seconds, clock = time.process_time() - start, time.perf_counter() - clock
        each = 1000 * (seconds - stub.seconds) / count
        said = f"{seconds:.1f} s of CPU ({clock:.1f} s by the clock), of which stubs {stub.seconds:.1f} s"
        print(f"{name}: {said}; {each:.2f} ms a scan", flush=True)
        if stub.rss:
            print(f"  MiB after each 1000 scans: {', '.join(f'{mib:.0f}' for mib in stub.rss)}")
        assert len(found.scans) == count
        assert not found.failures.reasons
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = (work / "out" / "index.html").stat().st_size / 1e6
    print(f"highest resident set: {peak:.0f} MiB; index.html: {size:.2f} MB")


def main() -> None:
    """Measure one of both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    workers = what.add_parser("workers")
    workers.add_argument("-i", "--input", type=Path, required=True, help="Scans: a folder or a list.")
    workers.add_argument("-m", "--model", type=Path, help="Folder, zip or name; default: the bundled one.")
    cohort = what.add_parser("cohort")
    cohort.add_argument("--scans", type=int, default=24_000)
    for one in (workers, cohort):
        one.add_argument("--work", type=Path, help="Folder that is kept; default: a temporary one.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        if given.what == "workers":
            measure_workers(given.input, given.model, work)
        else:
            measure_cohort(given.scans, work)


if __name__ == "__main__":
    main()
