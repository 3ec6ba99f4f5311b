"""Where the time of `halebrain detect` goes on one scan: medians of several runs, step by step.

Every step is the one that the command takes: reading, brain, registration, bias field, both networks at each level,
maps back on the grid of the scan, mask and lesions, and writing (mosaic, page, seven compressed maps, table,
provenance). The share of the networks is what a faster network could save at most; `other` is all that is in no step.
A first run that loads libraries and templates is told apart.

    python benchmarks/detect.py -i SCAN [-m MODEL] [-n 5] [--threads 1] [--brain auto] [--brain-mask MASK]
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from halebrain.cli.console import Console
from halebrain.core.device import find_device
from halebrain.core.mask import Cut
from halebrain.core.progress import Stopwatch
from halebrain.core.provenance import FIXED, ChosenThreshold
from halebrain.inference.lesions import mark_lesions
from halebrain.inference.outputs import OutputNames, write_detection
from halebrain.inference.predictor import Predictor, WorkingMaps
from halebrain.io.checksum import scan_sha256
from halebrain.io.volume import read_volume, stem_of
from halebrain.models.store import load_model
from halebrain.preprocessing.pipeline import WorkingScan
from halebrain.preprocessing.prepared import open_scan
from halebrain.report.embedding import scan_file
from halebrain.report.figures import figure_png
from halebrain.workflows.detector import FoundAnomalies, describe_found
from halebrain.workflows.pages import render, scan_mosaic, show_scan

WHOLE, NETWORKS, WRITING = "whole", "networks", "writing"


def run_once(
    predictor: Predictor, scan: Path, brain_mask: Path | None, threshold: float
) -> tuple[dict[str, float], int, int]:
    """Return step → seconds of one detection, how many slices the networks saw, and the bytes of the page."""
    watch = Stopwatch()
    with watch.step(WHOLE), tempfile.TemporaryDirectory() as folder:
        with watch.step("reading"):
            volume = read_volume(scan)
            scan_sha256(scan)
        working = open_scan(predictor.preprocessor, volume, scan, brain_mask=brain_mask)
        maps = run_networks(predictor, working, watch)
        with watch.step("back to native"):
            result = predictor.to_native(volume, working, maps)
        with watch.step("mask and lesions"):
            smallest = predictor.postprocessing.min_lesion_mm3
            cut = Cut(threshold, smallest)
            mask, lesions = mark_lesions(result, cut, working.template_to_native, regions=False)
            called = ChosenThreshold(value=threshold, name=FIXED, key=FIXED)
            about = replace(predictor.provenance(), scan=stem_of(scan), threshold=called)
            made = describe_found(about, working, lesions)
            found = FoundAnomalies(volume, result, working, maps, mask, lesions, called, made)
        names = OutputNames(Path(folder), stem_of(scan))
        write(found, names, watch)
        page_bytes = names.page.stat().st_size
    n_slices = int(maps.reconstruction.any(axis=(0, 1)).sum())
    return watch.seconds | working.seconds, n_slices, page_bytes


def run_networks(predictor: Predictor, working: WorkingScan, watch: Stopwatch) -> WorkingMaps:
    """Run both networks; each level has its own step inside theirs."""
    turns = iter([level for level in predictor.levels for _ in range(predictor.draws)])
    last = [time.perf_counter()]

    def one_more() -> None:
        name, now = f"level {next(turns)}", time.perf_counter()
        watch.seconds[name] = watch.seconds.get(name, 0.0) + now - last[0]
        last[0] = now

    with watch.step(NETWORKS):
        return predictor.predict_working(working, working.qc.inferred_contrast, progress=one_more)


def write(found: FoundAnomalies, names: OutputNames, watch: Stopwatch) -> None:
    """Write what the command writes; mosaic and page are drawn while maps are compressed in the other threads."""
    drawing = Stopwatch()

    def draw() -> dict[Path, bytes]:
        with drawing.step("… mosaic"):
            figure = scan_mosaic(found.scan, found.maps, cut=found.threshold.cut, title=names.stem)
            picture = figure_png(figure, dpi=110)
        with drawing.step("… page"):
            shown = show_scan(found.volume, found.result)
            pages = render(names, found.result, found.mask, shown, found.lesions, found.made, picture=picture)
        with drawing.step("… scan of the page"):
            return pages | {names.display: scan_file(shown)}

    threads = torch.get_num_threads()
    with watch.step(WRITING):
        write_detection(names, found.result, found.mask, found.lesions, found.made, draw, threads=threads)
    watch.seconds |= drawing.seconds


def report(first: dict[str, float], runs: list[dict[str, float]], n_slices: int, n_draws: int) -> None:
    """Print the table: median and range of each step, its share of the whole, and what the networks come to."""
    median = {name: statistics.median(run.get(name, 0.0) for run in runs) for name in first}
    levels = [name for name in median if name.startswith("level ")]
    drawn = [name for name in median if name.startswith("… ")]
    steps = [name for name in median if name not in (WHOLE, *levels, *drawn)]
    rest = [run[WHOLE] - sum(run.get(name, 0.0) for name in steps) for run in runs]
    print("| step | median s | fastest | slowest | share | first run |\n|---|---|---|---|---|---|")
    for name in sorted(steps, key=lambda name: -median[name]):
        times = [run.get(name, 0.0) for run in runs]
        row(name, times, median[WHOLE], first[name])
        if name == NETWORKS:
            for level in levels:
                row(f"… {level}", [run[level] for run in runs], median[WHOLE], first[level])
        if name == WRITING:
            for part in drawn:
                row(part, [run[part] for run in runs], median[WHOLE], first[part])
    row("other", rest, median[WHOLE], first[WHOLE] - sum(first[name] for name in steps))
    row(WHOLE, [run[WHOLE] for run in runs], median[WHOLE], first[WHOLE])
    share = median[NETWORKS] / median[WHOLE]
    each = 1000 * sum(median[level] for level in levels) / (len(levels) * n_draws * n_slices)
    print(
        f"\nnetworks: {share:.0%} of the whole, which is {1 / share:.1f} × as long as they are; with networks that cost"
    )
    print(f"nothing {median[WHOLE] - median[NETWORKS]:.2f} s would stay. {each:.1f} ms a slice, level and draw.")


def row(name: str, times: list[float], whole: float, first: float) -> None:
    """Print one line of the table."""
    middle = statistics.median(times)
    share = f"{middle / whole:.0%}"
    print(f"| {name} | {middle:.2f} | {min(times):.2f} | {max(times):.2f} | {share} | {first:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--input", type=Path, required=True, help="One scan.")
    parser.add_argument("-m", "--model", type=Path, help="Folder, zip or name; default: the bundled one.")
    parser.add_argument("-n", "--runs", type=int, default=5, help="Beside the first; 1 or more.")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--brain", default="auto")
    parser.add_argument("--brain-mask", type=Path)
    parser.add_argument("--threshold", type=float, default=0.3, help="Of the mask; hardly matters for the time.")
    given = parser.parse_args()
    Console(threads=given.threads, no_progress=True).begin("detect")
    start = time.perf_counter()
    bundle = load_model(given.model)
    loading, device = time.perf_counter() - start, find_device(given.device)
    how = {"draws": given.draws, "batch_size": given.batch_size, "brain": given.brain}
    predictor = Predictor(bundle, device=device, **how)
    asked = (predictor, given.input, given.brain_mask, given.threshold)
    (first, n_slices, page_bytes), *others = (run_once(*asked) for _ in range(given.runs + 1))
    shape = " × ".join(str(n) for n in read_volume(given.input).shape)
    print(f"{given.input.name}: {shape} voxels, {n_slices} slices with brain; model {bundle.sha256[:12]}, read in")
    print(f"{loading:.2f} s; {device}, {torch.get_num_threads()} threads, batches of {given.batch_size},")
    print(f"{len(predictor.levels)} levels × {given.draws} draws; median of {given.runs} runs after the first\n")
    report(first, [seconds for seconds, *_ in others], n_slices, given.draws)
    print(f"The page has {page_bytes / 1e6:.1f} MB.")


if __name__ == "__main__":
    main()
