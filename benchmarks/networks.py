"""Parameters, cost and speed of the networks: `demo` and the bundled model beside `paper`, in one run.

Prints parameters, GFLOP a slice (multiply and add counted apart), slices a second for one reconstruction and for a
training step of stage 1, the time of both networks over a scan (50 slices, three levels), and the time of 32
simplex fields. Training in bfloat16, inference in float32, as the commands run them. Medians of several repeats;
ratios are to `paper`. The bundled model runs as in `detect`: its own levels, all segmenters of a contrast, the second
look at a tenth of the brain; with `--compile` once more with compiled networks.

    python benchmarks/networks.py [--skip-paper-training] [--compile]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import halebrain
from halebrain.core.config import load_config
from halebrain.core.random import draw_seeds, make_generator
from halebrain.inference.predictor import Predictor
from halebrain.models.noise import simplex_noise
from halebrain.models.reconstruction import Reconstructor, build_reconstructor
from halebrain.models.segmentation import Segmenter
from halebrain.models.store import load_model
from halebrain.training.reconstructor import ReconstructorTraining
from halebrain.training.segmenter_config import SegmenterTraining

CONFIGS = Path(halebrain.__file__).parent / "configs"
SIDE, SLICES = 96, 50


@dataclass
class Measured:
    """What is printed for one setting."""

    parameters: tuple[float, float]
    gflop: tuple[float, float]
    reconstruct: float
    train: float
    scan_s: float


def median_s(run: Callable[[], object], repeats: int) -> float:
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def gflop(run: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops() / 1e9


def millions(network: nn.Module) -> float:
    return sum(p.numel() for p in network.parameters()) / 1e6


def training_rate(reconstructor: Reconstructor, image: torch.Tensor, repeats: int) -> float:
    optimizer = torch.optim.AdamW(reconstructor.parameters(), lr=1e-4)
    generator = make_generator(0)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = reconstructor.loss(image, generator=generator)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return len(image) / median_s(step, repeats)


def measure(name: str, *, repeats: int, batch: int, train: bool) -> Measured:
    stage1 = load_config(ReconstructorTraining, CONFIGS / f"reconstructor_{name}.yaml")
    stage2 = load_config(SegmenterTraining, CONFIGS / f"segmenter_{name}.yaml")
    reconstructor = build_reconstructor(stage1.reconstructor.name, stage1.reconstructor.settings)
    reconstructor = reconstructor.to(memory_format=torch.channels_last)
    segmenter = Segmenter(stage2.segmenter).to(memory_format=torch.channels_last).eval()
    image = torch.rand(batch, 1, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    seeds = draw_seeds(batch, make_generator(0))
    rate = training_rate(reconstructor.train(), image, repeats) if train else float("nan")
    reconstructor.eval()

    def reconstruct() -> torch.Tensor:
        with torch.inference_mode():
            return reconstructor.reconstruct(image, level=500, seeds=seeds)

    def both() -> torch.Tensor:
        with torch.inference_mode():
            return segmenter(image, reconstructor.reconstruct(image, level=500, seeds=seeds))

    one = image[:1]
    return Measured(
        parameters=(millions(reconstructor), millions(segmenter)),
        gflop=(
            gflop(lambda: reconstructor.reconstruct(one, level=500, seeds=seeds[:1])),
            gflop(lambda: segmenter(one, one)),
        ),
        reconstruct=batch / median_s(reconstruct, repeats),
        train=rate,
        scan_s=median_s(both, repeats) / batch * SLICES * 3,
    )


def bundled_scan_s(contrast: str, *, repeats: int, compiled: bool) -> float:
    """Return the seconds of all networks of the bundled model over a scan of `SLICES` slices."""
    bundle = load_model("general")
    predictor = Predictor(bundle, compiled=compiled)
    image, mask = torch.rand(SLICES, 1, SIDE, SIDE), torch.ones(SLICES, 1, SIDE, SIDE)
    doubted = torch.zeros_like(image)
    doubted[..., :30, :30] = 1.0
    seeds = draw_seeds(SLICES, make_generator(0))

    def scan() -> None:
        for level in predictor.levels:
            predictor.run_level(image, mask, level, seeds, contrast)
        for start in range(0, SLICES, predictor.batch_size):
            part = slice(start, start + predictor.batch_size)
            with torch.inference_mode():
                bundle.reconstructor.second_pass(image[part], doubted[part])

    return median_s(scan, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skip-paper-training", action="store_true", help="save a minute and 7 GB")
    parser.add_argument("--compile", action="store_true", help="the bundled model with torch.compile too")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {SIDE} × {SIDE} slices")
    results = {
        "demo": measure("demo", repeats=7, batch=16, train=True),
        "paper": measure("paper", repeats=3, batch=4, train=not arguments.skip_paper_training),
    }
    print(f"{'':8}{'reconstructor':>16}{'segmenter':>12}{'GFLOP a slice':>18}", end="")
    print(f"{'reconstruct/s':>15}{'train/s':>10}{'scan, both':>12}")
    for name, m in results.items():
        print(f"{name:8}{m.parameters[0]:>14.2f} M{m.parameters[1]:>10.2f} M", end="")
        print(f"{m.gflop[0]:>10.2f} + {m.gflop[1]:<5.2f}{m.reconstruct:>15.1f}{m.train:>10.1f}{m.scan_s:>10.1f} s")
    demo, paper = results["demo"], results["paper"]
    print(f"demo over paper: reconstruction {demo.reconstruct / paper.reconstruct:.0f} × as fast,", end=" ")
    print(f"training {demo.train / paper.train:.0f} ×, a scan {paper.scan_s / demo.scan_s:.0f} ×")
    for compiled in (False, True) if arguments.compile else (False,):
        for contrast in ("FLAIR", "T2w", "T1w"):
            seconds = bundled_scan_s(contrast, repeats=3, compiled=compiled)
            how = ", compiled" if compiled else ""
            print(f"bundled, {contrast}{how}: {seconds:.2f} s a scan, {paper.scan_s / seconds:.0f} × as fast as paper")
    seeds = draw_seeds(32, make_generator(0))
    fields = median_s(lambda: simplex_noise(seeds, SIDE, SIDE, torch.device("cpu")), 30)
    print(f"32 simplex fields of {SIDE} × {SIDE}: {fields * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
