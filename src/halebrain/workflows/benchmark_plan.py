"""The plan of a benchmark: its cells, what they cost and what is missing, without training anything."""

from dataclasses import dataclass
from pathlib import Path

from halebrain.benchmarking.cost import CellCost, ScanCounts, cell_costs
from halebrain.benchmarking.inputs import missing_inputs, read_fold
from halebrain.benchmarking.plan import chosen_cells, plan
from halebrain.benchmarking.run import finished_cells, given_tables
from halebrain.core.errors import HalebrainError
from halebrain.core.progress import track
from halebrain.io.manifest import Manifest
from halebrain.workflows.benchmark import read_matrix
from halebrain.workflows.settings import BenchmarkSettings

_SCAN_BYTES = 4 + 1 + 1
"""Of each voxel of a scan in temporary files: intensity, brain mask, lesion."""
_RECONSTRUCTION_BYTES = 4


@dataclass(frozen=True)
class BenchmarkPlan:
    """What a benchmark would do.

    Args:
        cells: Every cell with its cost, in the order in which they run.
        missing: What they need and is not there, one line each.
        disk_bytes: Temporary files of scans and reconstructions while the largest fold is evaluated.
    """

    cells: list[CellCost]
    missing: list[str]
    disk_bytes: int

    @property
    def left(self) -> list[CellCost]:
        """The cells without a result."""
        return [cell for cell in self.cells if not cell.done]

    @property
    def flop(self) -> float:
        """Operations of the cells without a result."""
        return sum(cell.flop for cell in self.left)

    @property
    def memory_bytes(self) -> int:
        """Most memory of a training on its device."""
        return max((cell.memory_bytes for cell in self.left), default=0)

    def hours(self, tflops: float) -> float:
        """Return the hours that the cells without a result take at a number of 10¹² operations a second."""
        return self.flop / (tflops * 1e12) / 3600


def plan_benchmark(output: Path, settings: BenchmarkSettings) -> BenchmarkPlan:
    """Return what `run_benchmark` would do with the same settings; writes nothing.

    Raises:
        HalebrainError: The configuration cannot be used.
    """
    config = read_matrix(settings)
    cells, paths = chosen_cells(plan(config), settings.only), given_tables(config)
    tables = dict[int, Manifest]()
    for fold, path in enumerate(paths):
        try:
            tables[fold] = read_fold(path, config)
        except HalebrainError:
            continue  # listed among what is missing
    if not paths and (cohort := output / "cohort" / "manifest.tsv").is_file():
        tables[0] = read_fold(cohort, config)
    counts = {fold: ScanCounts.of(rows, config) for fold, rows in tables.items()}
    # A fold that cannot be read costs about what the others do.
    usual = next(iter(counts.values()), ScanCounts(0) if paths else ScanCounts.of_cohort(config))
    scans = {fold: counts.get(fold, usual) for fold in range(max(1, len(paths)))}
    done = frozenset(finished_cells(config, cells, output, tables))
    costs = list(track(cell_costs(config, cells, scans, done), description="Counting", total=len(cells)))
    voxels = config.preprocessing.shape[0] * config.preprocessing.shape[1] * config.preprocessing.shape[2]
    each = _SCAN_BYTES + _RECONSTRUCTION_BYTES * max((cell.n_levels for cell in costs), default=0)
    disk = max(own.evaluated for own in scans.values()) * voxels * each * len(config.every_modality)
    return BenchmarkPlan(costs, missing_inputs(config, cells, dict(enumerate(paths))), disk)
