"""Settings of where scans are processed, and which part of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from halebrain.core.errors import UsageError
from halebrain.core.parallel import ExecutorName, Schedule
from halebrain.workflows.settings.option import Option

Item = TypeVar("Item")


@dataclass(frozen=True)
class SchedulerSettings:
    """Where the scans of a command are processed; the results are the same."""

    workers: Annotated[
        int | None,
        Option("Number of scans in parallel, one process each; default: one after the other.", minimum=0),
    ] = None
    executor: Annotated[
        ExecutorName,
        Option("processes of this machine, dask (workers of a running cluster), or submitit (SLURM jobs)."),
    ] = "processes"
    dask_address: Annotated[str | None, Option("Address of the Dask scheduler: tcp://HOST:8786.")] = None
    dask_scheduler_file: Annotated[
        Path | None, Option("File that the Dask scheduler wrote (--scheduler-file), instead of its address.")
    ] = None
    slurm: Annotated[
        tuple[str, ...],
        Option("key=value of sbatch for --executor submitit (partition=long, time=08:00:00); repeatable."),
    ] = ()

    def __post_init__(self) -> None:
        """Refuse options of another executor than the chosen one."""
        places = [name for name in ("dask_address", "dask_scheduler_file") if getattr(self, name) is not None]
        if self.executor == "dask" and len(places) != 1:
            raise UsageError(
                "--executor dask needs --dask-address or --dask-scheduler-file",
                received="both" if places else "neither",
                remedy="start a cluster with dask scheduler and dask worker, and give its address",
            )
        if self.executor == "submitit" and not self.workers:
            raise UsageError(
                "--executor submitit needs --workers",
                received=self.workers or 0,
                remedy="say how many jobs run at once",
            )
        if places and self.executor != "dask":
            flag = f"--{places[0].replace('_', '-')}"
            raise UsageError(
                f"{flag} needs --executor dask", received=self.executor, remedy="add it, or remove the flag"
            )
        if self.slurm and self.executor != "submitit":
            raise UsageError(
                "--slurm needs --executor submitit", received=self.executor, remedy="add it, or remove the flag"
            )

    def schedule(self, output: Path, *, threads: int | None = None, workers: int = 0) -> Schedule:
        """Return where scans are processed; `workers` are those of the command if the user gives none."""
        return Schedule(
            workers=workers if self.workers is None and self.executor == "processes" else self.workers or 0,
            threads=threads,
            executor=self.executor,
            dask_address=self.dask_address,
            dask_scheduler_file=self.dask_scheduler_file,
            slurm=self.slurm,
            output=output,
        )


@dataclass(frozen=True)
class PartSettings:
    """Which part of the scans a command processes, where an array of jobs shares them."""

    part_id: Annotated[int, Option("Index of this part, from 0.", minimum=0)] = 0
    num_parts: Annotated[int, Option("Number of parts that the scans are divided into.", minimum=1)] = 1

    def __post_init__(self) -> None:
        """Refuse a part that there is not."""
        if self.part_id >= self.num_parts:
            raise UsageError(
                "--part-id must be from 0 to --num-parts − 1",
                received=f"{self.part_id} of {self.num_parts}",
                remedy="for example --num-parts 4 --part-id 0, 1, 2 and 3",
            )

    @property
    def suffix(self) -> str:
        """What is added to the name of a list of failures."""
        return "" if self.num_parts == 1 else f"-{self.part_id}of{self.num_parts}"

    def own(self, items: Sequence[Item]) -> list[Item]:
        """Return the items of this part: every `num_parts`-th one."""
        return list(items[self.part_id :: self.num_parts])


WHOLE = PartSettings()
"""All scans, in one part."""
