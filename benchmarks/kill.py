"""What kill -9 does to `prepare`, `train`, `detect` and `bids`: killed at random, resumed until done, and compared.

python benchmarks/kill.py [-n 30] [--seed 0] [--command detect …]

Each command runs once undisturbed. Then it is started again and again in new folders, and killed with its workers
after a random part of that time; the same command goes on from what is there, until it ends by itself. Its files must
be those of the undisturbed run, bit for bit, but for what says how long it took; no scan may be lost, and nothing
hidden or temporary may stay. Exit code 1 where any of that does not hold.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.nifti import write_volume
from halebrain.models.bundle import Bundle, ModelConfig, build_networks, save_bundle

HALEBRAIN = (sys.executable, "-c", "from halebrain.cli.main import main; main()")
SPACING_MM, SHAPE = 5.0, (36, 44, 34)
PREPROCESSING = {"shape": [32, 32, 24], "spacing_mm": 6.0, "registration": "none", "bias_correction": "none"}
SUBJECTS = ("a", "b", "c", "d")
TIMES = {"seconds", "costs", "peak_memory_mib"}
"""Fields and columns of how long it took and how much memory: they differ between any two runs."""
HASHES = {"sha256", "files", "model_sha256"}
"""Fields that hash a file with such times."""
_IN_TEXT = re.compile(rb"&#34;seconds&#34;: [0-9.]+|[0-9.]+ minutes on")
"""The same in pages and in the card of a model."""
MAX_RUN_S = 300.0


@dataclass
class Outcome:
    """What became of one command over all its kills."""

    seconds: float
    begins: float
    kills: int = 0
    resumed_to_the_end: int = 0
    at_work: int = 0
    lost: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nothing is lost, different or left over."""
        return not (self.lost or self.different or self.left_over)


def make_inputs(folder: Path, seed: int) -> None:
    """Write four scans as a manifest, a folder and a BIDS data set, and a small model with random weights."""
    middle = [(n - 1) / 2 for n in SHAPE]
    axes = np.meshgrid(*(np.arange(n) - m for n, m in zip(SHAPE, middle, strict=True)), indexing="ij")
    inside = sum((axis * SPACING_MM / radius) ** 2 for axis, radius in zip(axes, (65, 80, 60), strict=True)) < 1
    affine = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    affine[:3, 3] = [-90.0, -128.0, -74.0]
    records = []
    for number, subject in enumerate(SUBJECTS):
        noise = np.random.default_rng((seed, number)).random(SHAPE)
        path = folder / "scans" / f"sub-{subject}_FLAIR.nii.gz"
        write_volume(path, np.where(inside, 100 + 30 * noise, 0).astype(np.float32), affine)
        anat = folder / "study" / f"sub-{subject}" / "anat"
        anat.mkdir(parents=True)
        shutil.copy(path, anat)
        split = "val" if number == 0 else "train"
        records.append(ScanRecord(subject=subject, image=path, modality="FLAIR", split=split, pathology="healthy"))
    Manifest(tuple(records)).write(folder / "manifest.tsv")
    description = {"Name": "kill", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (folder / "study" / "dataset_description.json").write_text(json.dumps(description))
    unet = {"channels": [8, 8], "blocks_per_level": 1, "patch": 4, "norm_groups": 4, "attention_head_channels": 0}
    config = ModelConfig(
        kind="detector",
        reconstructor={"name": "ddpm", "settings": {"unet": unet, "noise": "gaussian", "test_levels": [500]}},
        segmenter={"channels": [8, 16], "patch": 2},
        preprocessing=PREPROCESSING,
        postprocessing={"residual": "positive", "median_size": 1},
    )
    torch.manual_seed(seed)
    save_bundle(Bundle(config, *build_networks(config), {}, {}), folder / "model", card="random weights")


def commands(inputs: Path) -> dict[str, list[str]]:
    """Return each command with its arguments; results go into `out` of the folder in which it runs."""
    settings = [f"--set={key}={json.dumps(value)}" for key, value in PREPROCESSING.items()]
    loop = {"steps": 60, "validate_every": 6, "checkpoint_every": 6, "log_every": 3, "validation_batches": 1}
    training = [f"--set=loop.{key}={value}" for key, value in loop.items()]
    training.append(f"--set=data.preprocessing={json.dumps(PREPROCESSING)}")
    table, look = ["--manifest", f"{inputs / 'manifest.tsv'}"], ["-m", str(inputs / "model"), "--threshold", "0.05"]
    found = {
        "prepare": ["-i", str(inputs / "manifest.tsv"), "-o", "out", "--workers", "2", *settings],
        "train": ["reconstructor", "-c", "tiny", *table, "-o", "out", "--device", "cpu", "--threads", "1", *training],
        "detect": ["-i", str(inputs / "scans"), "-o", "out", "--threads", "1", *look],
        "bids": [str(inputs / "study"), "out", "participant", "--skip-bids-validation", "--n-procs", "2", *look],
    }
    return {name: [name, *arguments, "--no-progress"] for name, arguments in found.items()}


def run(arguments: Sequence[str], place: Path, kill_after_s: float | None = None) -> int | None:
    """Run a command in a folder; return its exit code, or `None` where it was killed with all its processes."""
    (place / "tmp").mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"TMPDIR": str(place / "tmp"), "OMP_NUM_THREADS": "1"}
    with (place / "said.txt").open("ab") as said:
        process = subprocess.Popen(
            [*HALEBRAIN, *arguments],
            cwd=place,
            env=environment,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            return process.wait(MAX_RUN_S if kill_after_s is None else kill_after_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if kill_after_s is None:
                raise
            return None


def contents(folder: Path) -> dict[str, str]:
    """Return path → hash of every file, without what says how long it took."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(comparable(path)).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def comparable(path: Path) -> bytes:
    """Return the bytes of a file without what differs between any two runs."""
    if path.suffix == ".json":
        return json.dumps(without_times(json.loads(path.read_text(encoding="utf-8")))).encode()
    if path.suffix in (".csv", ".tsv"):
        text = path.read_text(encoding="utf-8")
        rows = csv.DictReader(io.StringIO(text), delimiter="," if path.suffix == ".csv" else "\t")
        return json.dumps([{k: v for k, v in row.items() if k not in TIMES} for row in rows]).encode()
    if path.suffix == ".pt":
        return tensors(torch.load(path, map_location="cpu", weights_only=True))
    if path.suffix in (".html", ".md"):
        return _IN_TEXT.sub(b"", path.read_bytes())
    return path.read_bytes()


def without_times(value: Any) -> Any:
    """Return JSON without the fields that say how long it took."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES | HASHES}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def tensors(value: Any) -> bytes:
    """Return what a checkpoint holds as bytes, without the time that it took."""
    if isinstance(value, dict):
        return b"".join(str(k).encode() + tensors(v) for k, v in value.items() if k not in TIMES)
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    return b"".join(map(tensors, value)) if isinstance(value, list | tuple) else repr(value).encode()


def first_output(folder: Path) -> float:
    """Return when the first file was written that is still there, seconds since 1970."""
    return min(path.stat().st_mtime for path in folder.rglob("*") if path.is_file())


def hidden(place: Path) -> list[str]:
    """Return what is hidden in results, and what is ours among temporary files."""
    kept = {".bidsignore"}
    found = [path for path in (place / "out").rglob(".*") if path.name not in kept]
    found += [path for path in (place / "tmp").iterdir() if path.name.startswith(("halebrain-", "."))]
    return [path.relative_to(place).as_posix() for path in found]


def kill_until_done(
    name: str, arguments: list[str], place: Path, outcome: Outcome, kills: int, luck: random.Random
) -> None:
    """Start a command in a new folder, kill it up to `kills` times, and let it go on to its end."""
    said = f"{name} {place.name}"
    for _ in range(kills):
        code = run(arguments, place, kill_after_s=luck.uniform(outcome.begins, outcome.seconds))
        if code is not None:
            if code:
                outcome.different.append(f"{said}: exit code {code}, see {place / 'said.txt'}")
            break
        outcome.kills += 1
        outcome.at_work += (place / "out").exists()
    if code := run(arguments, place):
        outcome.different.append(f"{said}: exit code {code}, see {place / 'said.txt'}")
    outcome.resumed_to_the_end += 1


def judge(place: Path, reference: dict[str, str], outcome: Outcome) -> None:
    """Compare a resumed run with the undisturbed one."""
    found = contents(place / "out")
    name = place.name
    outcome.left_over += [f"{name}: {path}" for path in hidden(place)]
    outcome.lost += [f"{name}: {path}" for path in sorted(reference.keys() - found.keys())]
    more = sorted(path for path in found.keys() - reference.keys() if not Path(path).name.startswith("."))
    other = sorted(path for path in reference.keys() & found.keys() if reference[path] != found[path])
    outcome.different += [f"{name}: {path}" for path in (*more, *other)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=30, help="Kills, dealt to the commands in turn.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", nargs="+", choices=["prepare", "train", "detect", "bids"], help="Only these.")
    parser.add_argument("--keep", type=Path, help="Work here and leave it; default: a temporary folder.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-") as temporary:
        work = (arguments.keep or Path(temporary)).absolute()
        make_inputs(work / "inputs", arguments.seed)
        known = commands(work / "inputs")
        found = torment(work, {name: known[name] for name in arguments.command or known}, arguments.n, arguments.seed)
    show(found)
    sys.exit(0 if all(outcome.is_good for outcome in found.values()) else 1)


def torment(work: Path, known: dict[str, list[str]], kills: int, seed: int) -> dict[str, Outcome]:
    """Run every command undisturbed, then kill them in turn, and return what became of each."""
    luck, found, references = random.Random(seed), dict[str, Outcome](), dict[str, dict[str, str]]()
    for name, command in known.items():
        place = work / name / "undisturbed"
        start, wall = time.monotonic(), time.time()
        if code := run(command, place):
            sys.exit(f"{name}: exit code {code} without a kill:\n{(place / 'said.txt').read_text()}")
        # Half of the time until the first output is spent on imports, where a kill can do no harm.
        begins = (first_output(place / "out") - wall) / 2
        found[name] = Outcome(time.monotonic() - start, begins)
        references[name] = contents(place / "out")
        if left := hidden(place):
            sys.exit(f"{name} leaves {left} without a kill")
    trial = 0
    while (done := sum(outcome.kills for outcome in found.values())) < kills:
        name = list(known)[trial % len(known)]
        place = work / name / f"{trial:03d}"
        kill_until_done(name, known[name], place, found[name], min(luck.choice((1, 2, 3)), kills - done), luck)
        judge(place, references[name], found[name])
        trial += 1
    return found


def show(found: dict[str, Outcome]) -> None:
    """Print a line a command, and what went wrong."""
    print(
        "| command | undisturbed, s | kills | after the first output | runs to the end | lost | different | left over |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, o in found.items():
        counts = (o.kills, o.at_work, o.resumed_to_the_end, len(o.lost), len(o.different), len(o.left_over))
        print(f"| {name} | {o.seconds:.1f} | {' | '.join(map(str, counts))} |")
    for name, o in found.items():
        for kind in ("lost", "different", "left_over"):
            for line in getattr(o, kind)[:20]:
                print(f"{name}, {kind.replace('_', ' ')}: {line}")


if __name__ == "__main__":
    main()
