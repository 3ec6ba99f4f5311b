"""Several processes of one training: the same losses as one process, started in three ways, killed and resumed."""

import csv
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from halebrain.core.errors import ConfigError, DataError, UnavailableError, UsageError
from halebrain.models.bundle import load_bundle
from halebrain.models.reconstruction import build_reconstructor
from halebrain.training.devices import check_one_process, launch
from halebrain.training.loop_config import LoopConfig
from halebrain.training.micro_batches import RunningStatistics, own_batches
from halebrain.training.processes import gather, in_turn, share, taking_part, together

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning.*")

GRID = "data.preprocessing={shape: [32, 32, 24], spacing_mm: 6.0, registration: none, bias_correction: none}"
PARTS = ("--set", GRID, "--set", "loop.micro_batches=2", "--set", "loop.precision=32-true", "--device", "cpu")
CPU = torch.device("cpu")


class Place:
    """Stands for the fabric of one of several processes."""

    def __init__(self, rank: int, size: int) -> None:
        self.global_rank, self.world_size = rank, size


@pytest.fixture
def manifest(small_cohort) -> Path:
    rows = [("h1", "FLAIR", "train", "healthy"), ("h2", "FLAIR", "val", "healthy")]
    return small_cohort([*rows, ("p1", "FLAIR", "train", "ms"), ("p2", "FLAIR", "val", "ms")])


def words(what: str, manifest: Path, output: Path, *more: object) -> list[str]:
    return ["train", what, "-c", "tiny", "--manifest", str(manifest), "-o", str(output), *PARTS, *map(str, more)]


def losses(folder: Path) -> list[tuple[str, ...]]:
    with (folder / "log.csv").open(newline="") as handle:
        return [tuple(row[k] for k in ("step", "loss", "val_loss", "gradient_norm")) for row in csv.DictReader(handle)]


def assert_same_curve(one: Path, other: Path) -> None:
    a, b = losses(one), losses(other)
    assert len(a) > 1
    for row, again in zip(a, b, strict=True):
        assert row[0] == again[0]
        assert [float(x) for x in row[1:] if x] == pytest.approx([float(x) for x in again[1:] if x], rel=1e-4)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_processes_share_out_the_micro_batches_of_each_step(size: int) -> None:
    own = [own_batches(range(3, 5), 4, Place(rank, size)) for rank in range(size)]  # type: ignore[arg-type]
    each = 4 // size
    for step in range(2):
        taken = [number for batches in own for number in batches[step * each : (step + 1) * each]]
        assert taken == list(range(4 * (3 + step), 4 * (4 + step)))


def test_work_is_shared_out_once() -> None:
    parts = [share(range(7), Place(rank, 3)) for rank in range(3)]  # type: ignore[arg-type]
    assert sorted(n for part in parts for n in part) == list(range(7))


def test_batch_norm_statistics_are_the_mean_over_micro_batches() -> None:
    norm, fabric = nn.BatchNorm1d(2, momentum=0.25), Fabric(accelerator="cpu", devices=1)
    frozen = nn.BatchNorm1d(2).eval()
    statistics = RunningStatistics(nn.Sequential(norm, frozen), 2, fabric)
    batches = torch.randn(2, 5, 2) + 3
    for batch in batches:
        norm(batch)
        statistics.add()
    statistics.finish()
    torch.testing.assert_close(norm.running_mean, 0.25 * batches.mean(dim=(0, 1)))
    torch.testing.assert_close(norm.running_var, 0.75 + 0.25 * batches.var(dim=1).mean(dim=0))
    assert torch.equal(frozen.running_var, torch.ones(2))


def test_the_bound_of_itermask_is_the_mean_over_micro_batches() -> None:
    unet = {"channels": [8, 8], "blocks_per_level": 1, "patch": 4, "norm_groups": 4, "attention_head_channels": 0}
    made = build_reconstructor("itermask", {"unet": unet}).train()
    made.bound.fill_(3.0)
    made.batches.fill_(1)
    statistics = RunningStatistics(made, 2, Fabric(accelerator="cpu", devices=1))
    for error in (1.0, 5.0):
        made._follow(torch.full((10,), error))
        statistics.add()
        assert (float(made.bound), int(made.batches)) == (3.0, 1)
    statistics.finish()
    # The second batch counts half: (3 + 1) / 2 and (3 + 5) / 2 in the mean.
    assert (float(made.bound), int(made.batches)) == (3.0, 2)


def test_one_micro_batch_leaves_batch_norm_alone() -> None:
    norm, alone = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    statistics = RunningStatistics(norm, 1, Fabric(accelerator="cpu", devices=1))
    batch = torch.randn(5, 2)
    norm(batch)
    statistics.add()
    statistics.finish()
    alone(batch)
    assert torch.equal(norm.running_mean, alone.running_mean)


def test_micro_batches_are_equal_parts_of_the_batch() -> None:
    assert LoopConfig(batch_size=12, micro_batches=4).micro_batch_size == 3
    with pytest.raises(ValueError, match="must divide batch_size, which is 12"):
        LoopConfig(batch_size=12, micro_batches=5)
    assert "micro_batches" not in LoopConfig().model_dump()  # so that runs of before it are resumed


def test_one_process_waits_for_nobody() -> None:
    fabric = launch(LoopConfig(precision="32-true"), CPU)
    with taking_part(fabric), together(fabric), in_turn(fabric):
        assert gather([1.0, 2.0], fabric) == [1.0, 2.0]
    with pytest.raises(DataError), taking_part(fabric), together(fabric), in_turn(fabric):
        raise DataError("a rule")


@pytest.mark.parametrize(
    ("device", "devices", "config", "kind", "message"),
    [
        ("cpu", 2, {}, ConfigError, "micro_batches=1 for 2 devices; start with --set loop.micro_batches=2"),
        ("cpu", 3, {"batch_size": 16}, ConfigError, "a number of devices that divides loop.batch_size=16"),
        ("cpu", 4, {"micro_batches": 2}, ConfigError, "for 4 devices; start with --set loop.micro_batches=4"),
        ("cuda", 999, {}, UnavailableError, "each process needs a GPU, got --devices 999"),
        ("cuda:1", 2, {}, UsageError, "CUDA_VISIBLE_DEVICES chooses among GPUs"),
        ("mps", 2, {}, UsageError, "of the kind cpu or cuda"),
    ],
)
def test_devices_that_cannot_share_a_training_are_refused(device, devices, config, kind, message) -> None:
    with pytest.raises(kind, match=message):
        launch(LoopConfig(**config), torch.device(device), devices=devices)


STARTED = [
    ({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4"}, 2, 1, "torchrun must be .* 4 processes for --devices 2"),
    ({"SLURM_STEP_NUM_TASKS": "3"}, 2, 1, "srun must be .* 3 processes for --devices 2 --nodes 1"),
    (
        {"SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4", "SLURM_NNODES": "1", "SLURM_NODEID": "0"},
        2,
        2,
        "--nodes must be what SLURM was asked for",
    ),
    ({"SLURM_STEP_NUM_TASKS": "1"}, 1, 2, "no MASTER_ADDR, MASTER_PORT, NODE_RANK"),
]


@pytest.mark.parametrize(("environment", "devices", "nodes", "message"), STARTED)
def test_another_number_of_processes_than_asked_for_is_refused(
    monkeypatch, environment, devices, nodes, message
) -> None:
    task = {"SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    for name, value in {**task, **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        launch(LoopConfig(micro_batches=devices * nodes), CPU, devices=devices, nodes=nodes)


def test_processes_that_would_each_train_alone_are_refused(monkeypatch) -> None:
    check_one_process()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(UsageError, match="2 processes, and one device; add --devices"):
        check_one_process()


def start(programs: Path, arguments: list[str], **environment: object) -> "subprocess.Popen[str]":
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    own = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"} | {k: str(v) for k, v in environment.items()}
    return subprocess.Popen(
        ["halebrain", *arguments], env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def by_torchrun(rank: int) -> dict[str, object]:
    return {"TORCHELASTIC_RUN_ID": "none", "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2}


def by_slurm(rank: int) -> dict[str, object]:
    """Two nodes with a task each."""
    step = {"SLURM_STEP_NUM_TASKS": 2, "SLURM_NTASKS": 2, "SLURM_NTASKS_PER_NODE": 1, "SLURM_NNODES": 2}
    return step | {"SLURM_PROCID": rank, "SLURM_LOCALID": 0, "SLURM_NODEID": rank, "SLURM_JOB_NAME": "train"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "options"), [(by_torchrun, ("--devices", 2)), (by_slurm, ("--nodes", 2))], ids=["torchrun", "srun"]
)
def test_processes_of_a_launcher_learn_what_one_process_learns(
    command, programs, manifest, tmp_path, environment, options
) -> None:
    """The encoder with batch norm, or the segmenter on pairs, whose making is shared out."""
    what, more = "encoder", ["--set", "masked={cell: 8, encoder: {norm: batch}}"]
    if environment is by_slurm:
        assert command(*words("reconstructor", manifest, tmp_path / "r", "--set", "loop.steps=2"))[0] == 0
        what, more = "segmenter", ["--reconstructor", tmp_path / "r" / "model"]
        more += ["--set", "pairs={annotated: 2, synthetic: 2, validation: 2}", "--set", "regime=both"]
    code, said = command(*words(what, manifest, tmp_path / "one", *more))
    assert code == 0, said.err
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1]}
    arguments = words(what, manifest, tmp_path / "two", *more, *options)
    running = [start(programs, arguments, **place, **environment(rank)) for rank in range(2)]
    said = [process.communicate(timeout=240) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert "".join(out for out, _ in said).count("\n") == 1, "one of them tells the result"
    assert_same_curve(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_killed_with_two_processes_and_resumed_with_one(command, programs, manifest, tmp_path) -> None:
    long = ("--set", "loop.steps=18")
    code, said = command(*words("reconstructor", manifest, tmp_path / "one", *long))
    assert code == 0, said.err
    running = start(programs, words("reconstructor", manifest, tmp_path / "two", *long, "--devices", 2))
    while not (tmp_path / "two" / "checkpoint.pt").exists():
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    (other,) = processes_with(tmp_path / "two", "LOCAL_RANK=1")
    os.kill(other, signal.SIGKILL)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 70, err
    assert err.count("every process of a training must run until its end") == 1
    assert "Traceback" not in err
    assert losses(tmp_path / "two")[-1][0] != "18", "it was killed before its end"
    code, said = command(*words("reconstructor", manifest, tmp_path / "two", *long))
    assert code == 0, said.err
    assert_same_curve(tmp_path / "one", tmp_path / "two")
    ours, whole = (load_bundle(tmp_path / name / "model").reconstructor.state_dict() for name in ("two", "one"))
    for name, value in whole.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-5, msg=name)


def processes_with(folder: Path, variable: str) -> list[int]:
    """Return the processes with a folder among their arguments and a variable in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments, environment = ((process / name).read_bytes() for name in ("cmdline", "environ"))
        except OSError:  # it has ended, or is another user's
            continue
        if str(folder).encode() in arguments and variable.encode() in environment.split(b"\0"):
            found.append(int(process.name))
    return found
