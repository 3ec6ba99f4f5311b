"""What a GPU makes of both trainings and of `detect`: one prepared run, which `gpu.sh` starts with a time limit.

    bash benchmarks/gpu.sh [--device cuda] [--peak-tflops X] [--steps 300] [--batch-size 128] [--limit-s 450]
    bash benchmarks/gpu.sh --device cpu --toy

1. A virtual cohort is made, and one patient of 1 mm.
2. Both stages of the recipe `general` are trained for some steps by `halebrain train`. Each training is killed
   (SIGKILL) after its first checkpoint, and the same command resumes it. Rows of the log up to the checkpoint must stay
   as they were, its seconds too, and the training must end with a model.
3. The same training loop takes steps with one batch that is drawn already. Operations of a step, forwards and
   backwards, are counted by torch.utils.flop_counter.
4. `detect` processes the patient with the bundled model.

FLOP utilisation is operations of a step ÷ seconds of a step ÷ peak of the device: once for step 2, where slices are
drawn and augmented too, and once for step 3. The peak is that of dense bfloat16 in the vendor's data sheet
(`PEAK_TFLOPS`), or `--peak-tflops`; where neither is known, there is no utilisation, and the run says so. Each part
runs in a process of its own. A part that fails or meets the limit is named below the table, and the exit code is 1.
`--toy` makes networks, scans and steps small and takes the model that it trained: a rehearsal, whose figures mean
nothing.
"""

import argparse
import csv
import itertools
import multiprocessing
import os
import re
import resource
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from detect import NETWORKS, WHOLE, run_once
from halebrain.cli.main import main as halebrain
from halebrain.core.config import load_config
from halebrain.core.device import find_device
from halebrain.core.errors import HalebrainError
from halebrain.core.shipped_configs import find_config
from halebrain.inference.predictor import Predictor
from halebrain.io.manifest import Manifest
from halebrain.models.bundle import load_bundle
from halebrain.models.reconstruction import build_reconstructor
from halebrain.models.segmentation import Segmenter
from halebrain.models.store import load_model
from halebrain.training.batch_sampling import open_slices
from halebrain.training.devices import launch, resolve_precision
from halebrain.training.loop import Stage, train
from halebrain.training.loop_config import LoopConfig
from halebrain.training.loop_state import CHECKPOINT, LOG
from halebrain.training.reconstructor import ReconstructorStage, ReconstructorTraining
from halebrain.training.segmenter import SegmenterStage
from halebrain.training.segmenter_config import SegmenterTraining

PEAK_TFLOPS = {
    r"H[12]00 NVL": 835.0,
    r"H100 PCIe": 756.0,
    r"H[12]00": 989.0,
    r"A100": 312.0,
    r"L40S": 362.0,
    r"A40": 149.7,
    r"L4": 121.0,
    r"RTX 4090": 165.2,
}
"""Name of a device, as a pattern → 10¹² operations a second in dense bfloat16, of the vendor's data sheet."""
STAGES = {"stage 1": "reconstructor", "stage 2": "segmenter"}
LONGEST_S = 450.0
"""Longest run; `gpu.sh` ends everything a little later."""
COLUMNS = (*STAGES, "detect")
FORK = multiprocessing.get_context("fork")
"""Starts the parts without importing again. This process computes nothing and never touches CUDA, so forks are safe."""
LEVELS = "channels: [8, 16], blocks_per_level: 1, patch: 2, norm_groups: 4, attention_head_channels: 0"
BLOBS = "anomaly={name: blobs, settings: {probability: 0.8}}"
"""Anomalies for which no virtual patient is simulated first."""
COHORT = {
    False: "--subjects 16 --patients 4 --variety wide --modality T1w --modality FLAIR --pathology ms --pathology mass",
    True: "--subjects 4 --patients 3 --spacing-mm 4 --modality FLAIR --pathology ms",
}
"""Toy or not → which virtual people are learned from."""
PATIENT = "--subjects 0 --patients 1 --modality FLAIR --pathology ms --prefix one --spacing-mm"

SETS = {
    False: {"reconstructor": (), "segmenter": ("pairs=null",)},
    True: {
        "reconstructor": (
            "data.preprocessing={shape: [48, 48, 40], spacing_mm: 4.0, registration: none, bias_correction: none}",
            f"reconstructor.settings.unet={{{LEVELS}}}",
            BLOBS,
        ),
        "segmenter": ("pairs=null", "segmenter.channels=[8, 16]", BLOBS),
    },
}
"""Toy or not → settings of both stages beside those of the recipe. `pairs=null`: as the recipe has it on a GPU."""


class PartError(Exception):
    """A part of the run gave no figure; the message says why."""


@dataclass
class Plan:
    """What was asked, where files go, and when all must be over (seconds of the monotonic clock)."""

    asked: argparse.Namespace
    work: Path
    deadline: float

    @property
    def manifest(self) -> Path:
        """Table of the virtual cohort."""
        return self.work / "cohort" / "manifest.tsv"

    def settings(self, kind: str) -> tuple[str, ...]:
        """Return the settings of a stage beside those of its recipe."""
        steps = f"loop.steps={self.asked.steps}", f"loop.checkpoint_every={max(1, self.asked.steps // 3)}"
        size = f"loop.batch_size={self.asked.batch_size}", f"loop.log_every={max(1, self.asked.steps // 15)}"
        places = f"data.workers={self.asked.workers}", f"data.cache={self.work / 'cache'}"
        return (*SETS[self.asked.toy][kind], *steps, *size, *places)

    def training(self, kind: str) -> list[str]:
        """Return the command that trains a stage."""
        words = ["train", kind, "-c", "general", "-o", str(self.work / kind), "--manifest", str(self.manifest)]
        if kind == "segmenter":
            words += ["--reconstructor", str(self.work / "reconstructor" / "model")]
        sets = [word for setting in self.settings(kind) for word in ("--set", setting)]
        return [*words, *sets, "--device", self.asked.device, "--no-progress"]


@dataclass
class Figures:
    """The table: column → row → figure, and what went wrong."""

    cells: dict[str, dict[str, str]] = field(default_factory=lambda: {name: {} for name in COLUMNS})
    failed: list[str] = field(default_factory=list)

    def show(self) -> None:
        """Print the table, and below it what is missing."""
        rows = list(dict.fromkeys(row for column in self.cells.values() for row in column))
        print(f"| | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
        for row in rows:
            print(f"| {row} | {' | '.join(self.cells[name].get(row, '–') for name in COLUMNS)} |")
        for line in self.failed:
            print(f"not measured: {line}")


def _begin(target: Callable[..., Any], arguments: tuple[Any, ...], log: Path, answer: Connection) -> None:
    """Be a part: its own group of processes, its output in a file, its result or its error through `answer`."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        answer.send((True, target(*arguments)))
    except (HalebrainError, PartError) as error:
        answer.send((False, str(error)))
    except BaseException as error:
        traceback.print_exc()
        answer.send((False, f"{type(error).__name__}: {error}"))


@contextmanager
def started(plan: Plan, target: Callable[..., Any], *arguments: Any) -> Iterator[tuple[BaseProcess, Connection]]:
    """Start a part in a process; it and its descendants are killed at the end of the block, where any is left."""
    receive, send = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_begin, args=(target, arguments, plan.work / "output.txt", send))
    process.start()
    send.close()
    try:
        yield process, receive
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()  # where it has no group of its own yet
        process.join()


def finish(plan: Plan, target: Callable[..., Any], *arguments: Any) -> Any:
    """Run a part to its end and return its result.

    Raises:
        PartError: It failed, or the time limit came first.
    """
    with started(plan, target, *arguments) as (_, answer):
        if not answer.poll(max(0.0, plan.deadline - time.monotonic())):
            raise PartError(f"the limit of {plan.asked.limit_s:g} s came first; raise --limit-s or lower --steps")
        try:
            good, result = answer.recv()
        except EOFError:
            raise PartError("its process died, perhaps for want of memory") from None
    if not good:
        raise PartError(result)
    return result


def run_command(words: list[str]) -> None:
    """Run a command of `halebrain` in this process.

    Raises:
        PartError: Its exit code is not 0.
    """
    sys.argv = ["halebrain", *words]
    try:
        halebrain()
    except SystemExit as end:
        if end.code:
            raise PartError(f"halebrain {' '.join(words[:2])} ended with exit code {end.code}") from None


def kill_and_resume(plan: Plan, kind: str) -> dict[str, Any]:
    """Train a stage, kill it after its first checkpoint, and resume it by the same command.

    Returns:
        The step of the checkpoint, the last one, and the median seconds of a step of the resumed run.

    Raises:
        PartError: It did not go on from the checkpoint, or it failed.
    """
    folder, words = plan.work / kind, plan.training(kind)
    checkpoint = folder / CHECKPOINT
    with started(plan, run_command, words) as (process, answer):
        while not checkpoint.exists():
            if not process.is_alive():
                reason = answer.recv()[1] if answer.poll() else "its process died"
                raise PartError(f"it ended before its first checkpoint: {reason}")
            if time.monotonic() > plan.deadline:
                raise PartError(f"no checkpoint within the limit of {plan.asked.limit_s:g} s")
            time.sleep(0.002)
    if (folder / "model").exists():
        raise PartError("it ended before it could be killed; raise --steps")
    step = finish(plan, _step_of, checkpoint)
    before = [row for row in _log(folder) if int(row["step"]) <= step]
    finish(plan, run_command, words)
    after = _log(folder)
    if not before or after[: len(before)] != before:
        raise PartError(f"the log up to the checkpoint of step {step} changed: it was trained again, not resumed")
    if int(after[-1]["step"]) != plan.asked.steps or not (folder / "model").exists():
        raise PartError(f"the resumed run ended at step {after[-1]['step']} of {plan.asked.steps}")
    return {"checkpoint": step, "last": int(after[-1]["step"]), "step_s": _step_seconds(after[len(before) :])}


def _step_of(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["step"])


def _log(folder: Path) -> list[dict[str, str]]:
    with (folder / LOG).open(newline="") as handle:
        return list(csv.DictReader(handle))


def _step_seconds(rows: list[dict[str, str]]) -> float:
    """Return the median seconds of a step between rows of a log; those with a validation are left out."""
    plain = [(int(row["step"]), float(row["seconds"])) for row in rows if not row["val_loss"]]
    pairs = itertools.pairwise(plain)
    each = [(later - earlier) / (end - start) for (start, earlier), (end, later) in pairs]
    if not each:
        raise PartError("the log has fewer than two rows to compare; raise --steps")
    return statistics.median(each)


def step_alone(plan: Plan, kind: str) -> dict[str, float]:
    """Return operations and seconds of a step with a batch that is drawn already, and peak memory, MiB."""
    device = find_device(plan.asked.device)
    stage, loop = _stage(plan, kind)
    assert stage.draw is not None
    batch = stage.draw("train", 0)
    stage.draw = lambda split, step: batch
    n = plan.asked.steps
    quiet = {"log_every": max(1, n // 10), "checkpoint_every": n, "validate_every": n, "validation_batches": 1}
    own = loop.model_copy(update=quiet)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    folder = plan.work / f"{kind}-alone"
    folder.mkdir()
    train(stage, own, folder, fabric=launch(own, device), name=kind)
    memory = peak_mib(device)
    with FlopCounterMode(display=False) as counter:
        stage("train", 0, batch).backward()
    return {"flop": counter.get_total_flops(), "step_s": _step_seconds(_log(folder)), "mib": memory}


def _stage(plan: Plan, kind: str) -> tuple[Stage, LoopConfig]:
    """Return a stage with fresh weights on the scans of the cohort, as its command builds it."""
    overrides, path = plan.settings(kind), find_config(Path("general"), kind)
    manifest = Manifest.read(plan.manifest)
    healthy = manifest.select(lambda record: record.is_healthy)
    first = load_config(
        ReconstructorTraining, find_config(Path("general"), "reconstructor"), plan.settings("reconstructor")
    )
    data, cache = first.data, plan.work / "cache"
    if kind == "reconstructor":
        reconstructor = build_reconstructor(first.reconstructor.name, first.reconstructor.settings)
        reconstructor = reconstructor.to(memory_format=torch.channels_last)
        return ReconstructorStage(reconstructor, open_slices(healthy, "healthy", data, cache), first), first.loop
    second = load_config(SegmenterTraining, path, overrides)
    annotated = manifest.select(lambda record: record.is_annotated and not record.is_healthy)
    stores = {
        "synthetic": open_slices(healthy, "healthy", data, cache),
        "annotated": open_slices(annotated, "annotated", data, cache),
    }
    bundle = load_bundle(plan.work / "reconstructor" / "model")
    frozen = bundle.reconstructor.to(find_device(plan.asked.device))
    segmenter = Segmenter(second.segmenter).to(memory_format=torch.channels_last)
    return SegmenterStage(segmenter, frozen, stores, second), second.loop


def peak_mib(device: torch.device) -> float:
    """Return the most memory so far, MiB: what torch allocated on a GPU, else the resident set of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def detect(plan: Plan) -> dict[str, Any]:
    """Return seconds of `detect` on the patient: first run, median of the others, of these the networks' part."""
    device = find_device(plan.asked.device)
    bundle = load_model(plan.work / "segmenter" / "model" if plan.asked.toy else None)
    predictor = Predictor(bundle, device=device)
    scan = next(r for r in Manifest.read(plan.work / "patient" / "manifest.tsv") if r.is_annotated)
    runs = [run_once(predictor, scan.image, scan.brain_mask, 0.3)[0] for _ in range(2 if plan.asked.toy else 6)]
    whole, networks = (statistics.median(run[name] for run in runs[1:]) for name in (WHOLE, NETWORKS))
    return {"first": runs[0][WHOLE], "whole": whole, "networks": networks, "mib": peak_mib(device)}


def describe_device(name: str) -> tuple[str, str]:
    """Return the name of the device and the precision in which a training runs there."""
    device = find_device(name)
    called = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return called, resolve_precision("auto", device)


def find_peak(asked: float | None, name: str, precision: str) -> tuple[float | None, str]:
    """Return the peak of a device, 10¹² operations a second (`None` = unknown), and one line of where it is from."""
    if asked is not None:
        return asked, f"peak {asked:g} TFLOP/s, as given by --peak-tflops"
    known = (peak for pattern, peak in PEAK_TFLOPS.items() if re.search(rf"\b{pattern}\b", name))
    peak = next(known, None)
    if peak is None or "MIG" in name or precision != "bf16-mixed":
        return None, f"no peak is known of {name} in {precision}: no utilisation; give --peak-tflops"
    return peak, f"peak {peak:g} TFLOP/s, dense bfloat16, of the vendor's data sheet"


def measure(plan: Plan, figures: Figures) -> None:
    """Run all parts, and print the device first."""
    asked = plan.asked
    name, precision = finish(plan, describe_device, asked.device)
    peak, about = find_peak(asked.peak_tflops, name, precision)
    print(f"{name}, torch {torch.__version__}, {precision}, batches of {asked.batch_size}, {asked.steps} steps")
    print(f"{about}{'; toy size, the figures mean nothing' if asked.toy else ''}\n", flush=True)
    common = ["--seed", "7", "--no-progress"]
    workers = ["--workers", str(asked.workers)] if asked.workers else []
    finish(
        plan, run_command, ["cohort", "-o", str(plan.work / "cohort"), *COHORT[asked.toy].split(), *common, *workers]
    )
    size = "4" if asked.toy else "1"
    finish(plan, run_command, ["cohort", "-o", str(plan.work / "patient"), *PATIENT.split(), size, *common])
    for column, kind in STAGES.items():
        fill = figures.cells[column]
        with noting(figures, f"{column}, resumed"):
            run = kill_and_resume(plan, kind)
            fill["killed after the checkpoint of step, resumed up to"] = f"{run['checkpoint']}, {run['last']}"
            fill["ms a step, with drawing"] = f"{1e3 * run['step_s']:.1f}"
        with noting(figures, f"{column}, batch given"):
            alone = finish(plan, step_alone, plan, kind)
            fill["ms a step, batch given"] = f"{1e3 * alone['step_s']:.1f}"
            fill["GFLOP a step"] = f"{alone['flop'] / 1e9:.4g}"
            for text, seconds in (("with drawing", run["step_s"]), ("batch given", alone["step_s"])):
                if peak is not None:
                    fill[f"FLOP utilisation, {text}"] = f"{alone['flop'] / seconds / (peak * 1e12):.2%}"
            fill["peak memory, MiB"] = f"{alone['mib']:.0f}"
    with noting(figures, "detect"):
        took, fill = finish(plan, detect, plan), figures.cells["detect"]
        fill["peak memory, MiB"] = f"{took['mib']:.0f}"
        fill["s a scan"], fill["of these networks, s"] = f"{took['whole']:.2f}", f"{took['networks']:.2f}"
        fill["s of the first scan"] = f"{took['first']:.2f}"


@contextmanager
def noting(figures: Figures, name: str) -> Iterator[None]:
    """Note why a part gave no figure, and let the others go on."""
    try:
        yield
    except PartError as error:
        figures.failed.append(f"{name}: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--peak-tflops", type=float, help="Peak of the device; default: by its name.")
    parser.add_argument("--steps", type=int, help="Of each training; default: 300, and 30 with --toy.")
    parser.add_argument("--batch-size", type=int, help="Default: 128, and 4 with --toy.")
    parser.add_argument("--workers", type=int, help="Processes that draw; default: 12 or the cores, 0 with --toy.")
    parser.add_argument(
        "--limit-s", type=float, default=LONGEST_S, help="Seconds of the whole run; at most the default."
    )
    parser.add_argument("--toy", action="store_true", help="A rehearsal of seconds.")
    asked = parser.parse_args()
    small = {"steps": 30, "batch_size": 4, "workers": 0}
    large = {"steps": 300, "batch_size": 128, "workers": min(12, len(os.sched_getaffinity(0)))}
    for key, value in (small if asked.toy else large).items():
        setattr(asked, key, value if getattr(asked, key) is None else getattr(asked, key))
    if asked.steps < 30 or asked.batch_size < 1 or asked.workers < 0 or not 0 < asked.limit_s <= LONGEST_S:
        parser.error(
            f"--steps must be 30 or more, --batch-size positive, --workers 0 or more, --limit-s up to {LONGEST_S:g}"
        )
    if asked.peak_tflops is not None and not asked.peak_tflops > 0:
        parser.error("--peak-tflops must be positive")
    # An end from outside, of `timeout` too, ends the parts and removes the folder as any other.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="halebrain-gpu-") as folder:
        plan = Plan(asked, Path(folder), time.monotonic() + asked.limit_s)
        (plan.work / "output.txt").touch()
        with noting(figures, "all that follows"):
            measure(plan, figures)
        if figures.failed:
            sys.stderr.write((plan.work / "output.txt").read_text(errors="replace")[-4000:])
    figures.show()
    sys.exit(bool(figures.failed))


if __name__ == "__main__":
    main()
