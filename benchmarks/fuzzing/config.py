"""Configuration files: values of every kind in every place, YAML that is none, files that extend others."""

import functools
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

import yaml

from fuzzing.base import Attempt, kind
from fuzzing.damage import VALUES, changed, spoil_value

_NAMES = ("reconstructor_tiny", "segmenter_tiny", "joint_tiny", "encoder_tiny", "matrix_tiny", "matrix_cpu")
_TEXTS = (
    b"a: &a [x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b]\n"
    b"d: &d [*c, *c, *c, *c, *c, *c, *c, *c]\ndata: [*d, *d, *d, *d, *d, *d, *d, *d]\n",
    b"loop: &x {steps: *x}\n",
    b"loop: &x\n  steps: 3\n  more: *x\n",
    b"loop: " + b"[" * 3000,
    b"loop: " + b"{a: " * 3000,
    b"!!python/object/apply:os.system ['true']\n",
    b"? [a, b]\n: c\n",
    b"1: 2\n",
    b"null: 2\n",
    b"2024-01-01: 2024-01-01\n",
    b"seed: 2024-13-45\n",
    b"seed: 1:30\n",
    b"\xff\xfes\0e\0e\0d\0",
    b"\tseed: 1\n",
    b"seed: 1\nseed: 2\n",
    b"--- {}\n--- {}\n",
    b"<<: [1]\n",
    b"<<: *nothing\n",
    b"- a\n",
    b"text\n",
    b"",
    b"seed: " + b"9" * 5000 + b"\n",
    b"seed: 0x" + b"f" * 5000 + b"\n",
    b"seed: \x1b[31m\n",
    b"extends: [a]\n",
    b"extends: x.yaml\n",
    b"extends: .\n",
    b"extends: nowhere.yaml\n",
    b'extends: "a\\0b"\n',
    b"extends: " + b"x" * 5000 + b"\n",
)
_PAIRS = ("loop.steps", "seed", "a..b", ".", "", "data.modalities.0", "loop", "data.preprocessing.shape.9", "x" * 300)


@functools.cache
def _shipped(name: str) -> Any:
    return yaml.safe_load((files("halebrain") / "configs" / f"{name}.yaml").read_text())


@kind("config", weight=12)
def config(random: Random, folder: Path) -> Attempt:
    """Write a configuration, and read it as the training or the benchmark that it is for."""
    name = random.choice(_NAMES)
    pairs: list[str] = []
    about, raw = "as shipped", yaml.safe_dump(_shipped(name)).encode()
    match random.randrange(8):
        case 0:
            about, raw = changed(raw, random)
        case 1:
            raw = random.choice(_TEXTS)
            about = repr(raw[:40])
        case 2:
            pairs = [f"{random.choice(_PAIRS)}{random.choice('===:')}{random.choice(VALUES)}"]
            about = f"--set {pairs[0]}"[:80]
        case _:
            tree, done = _shipped(name), []
            for _ in range(random.choice((1, 1, 1, 2, 4))):
                words, tree = spoil_value(tree, random)
                done.append(words)
            about, raw = "; ".join(done), yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "replace")
    path = folder / "x.yaml"
    path.write_bytes(raw)
    return Attempt(f"{name}: {about}", functools.partial(_read, name.partition("_")[0], path, pairs))


def _read(what: str, path: Path, pairs: list[str]) -> None:
    """Do what the command does with a file before it looks for data."""
    from halebrain.benchmarking.config import MatrixConfig
    from halebrain.benchmarking.plan import plan
    from halebrain.core.config import dump_yaml, load_config
    from halebrain.training.encoder import EncoderTraining
    from halebrain.training.joint import JointTraining
    from halebrain.training.reconstructor import ReconstructorTraining
    from halebrain.training.segmenter_config import SegmenterTraining

    kinds: dict[str, Any] = {
        "matrix": MatrixConfig,
        "encoder": EncoderTraining,
        "joint": JointTraining,
        "reconstructor": ReconstructorTraining,
        "segmenter": SegmenterTraining,
    }
    settings = load_config(kinds[what], path, pairs)
    if what == "matrix":
        plan(settings)
    again = path.with_name("again.yaml")
    again.write_text(dump_yaml(settings), encoding="utf-8")
    load_config(kinds[what], again)
