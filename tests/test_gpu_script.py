"""The run prepared for a GPU, rehearsed on a CPU at toy size: what it prints, and that it says what it lacks."""

import os
import subprocess
from pathlib import Path

import pytest
from benchmarks.gpu import find_peak

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.sh"


def rehearse(folder: Path, programs: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "TMPDIR": str(folder)}
    words = ["bash", str(SCRIPT), "--device", "cpu", "--toy", *options]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def table(text: str) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {name: cells for name, *cells in lines[1:]}


@pytest.mark.slow
def test_the_run_is_rehearsed_from_the_cohort_to_the_table(tmp_path: Path, programs: Path) -> None:
    done = rehearse(tmp_path, programs, "--peak-tflops", "0.5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "peak 0.5 TFLOP/s, as given by --peak-tflops; toy size, the figures mean nothing" in done.stdout
    rows = table(done.stdout)
    for stage in range(2):
        checkpoint, last = rows["killed after the checkpoint of step, resumed up to"][stage].split(", ")
        assert (int(checkpoint) in (10, 20), int(last)) == (True, 30)
        gflop = float(rows["GFLOP a step"][stage])
        for how in ("with drawing", "batch given"):
            expected = gflop * 1e9 / (float(rows[f"ms a step, {how}"][stage]) * 1e-3) / 0.5e12
            assert float(rows[f"FLOP utilisation, {how}"][stage].rstrip("%")) / 100 == pytest.approx(expected, rel=0.05)
    assert 0 < float(rows["of these networks, s"][2]) < float(rows["s a scan"][2])
    assert all(float(cell) > 100 for cell in rows["peak memory, MiB"])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_that_meets_its_limit_says_so_and_leaves_nothing(tmp_path: Path, programs: Path) -> None:
    done = rehearse(tmp_path, programs, "--limit-s", "0.001")
    assert done.returncode == 1
    assert "not measured: all that follows: the limit of 0.001 s came first" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("NVIDIA H200", "bf16-mixed", 989.0),
        ("NVIDIA H100 NVL", "bf16-mixed", 835.0),
        ("NVIDIA A100-SXM4-80GB", "bf16-mixed", 312.0),
        ("NVIDIA L4", "bf16-mixed", 121.0),
        ("NVIDIA L40S", "bf16-mixed", 362.0),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "bf16-mixed", None),
        ("NVIDIA A100-SXM4-80GB", "32-true", None),
        ("cpu", "bf16-mixed", None),
    ],
)
def test_the_peak_of_a_device_is_known_or_said_to_be_unknown(name: str, precision: str, peak: float | None) -> None:
    found, about = find_peak(None, name, precision)
    assert found == peak
    assert ("give --peak-tflops" in about) == (peak is None)
    assert find_peak(2.0, name, precision)[0] == 2.0
