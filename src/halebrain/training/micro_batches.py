"""Micro-batches: which ones of a step a process takes, and running statistics that do not depend on who takes them.

Micro-batch `m` of step `s` is batch `s × micro_batches + m`; with one micro-batch a step, batches are steps.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def own_batches(steps: range, micro_batches: int, fabric: Fabric) -> Sequence[int]:
    """Return the batches that this process takes in `steps`, in order: as many neighbours in each step."""
    each = micro_batches // fabric.world_size
    if each == micro_batches:
        return range(steps.start * micro_batches, steps.stop * micro_batches)
    first = each * fabric.global_rank
    return [step * micro_batches + first + part for step in steps for part in range(each)]


@runtime_checkable
class HasRunningStatistics(Protocol):
    """A module that follows its training batches in buffers, as a batch norm does."""

    def running_statistics(self) -> tuple[torch.Tensor, ...]:
        """Return these buffers; a pass in training mode changes them in place."""


class RunningStatistics:
    """Running statistics of a network over a step: the mean of what each micro-batch alone would have made of them.

    So they are the same whether one device takes all micro-batches or each of several takes some, and a step moves them
    as far as a step of one micro-batch does.
    """

    def __init__(self, network: nn.Module, micro_batches: int, fabric: Fabric) -> None:
        self._fabric, self._count = fabric, micro_batches
        self._running = list(_running(network)) if micro_batches > 1 else []
        self._before = [tensor.clone() for tensor in self._running]
        self._sums = [torch.zeros_like(tensor) for tensor in self._running]

    @torch.no_grad()
    def add(self) -> None:
        """Take up what a micro-batch has made of the statistics, and set them back for the next one."""
        for running, before, total in zip(self._running, self._before, self._sums, strict=True):
            total += running
            running.copy_(before)

    @torch.no_grad()
    def finish(self) -> None:
        """Set the statistics to the mean over the micro-batches of all processes."""
        for running, total in zip(self._running, self._sums, strict=True):
            mean = self._fabric.all_reduce(total, reduce_op="sum") / self._count
            running.copy_(mean if running.is_floating_point() else mean.ceil())  # a count goes on by 1


def _running(network: nn.Module) -> Iterator[torch.Tensor]:
    for module in network.modules():
        if not module.training:
            continue
        if isinstance(module, HasRunningStatistics):
            yield from module.running_statistics()
        elif isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
            yield from (module.running_mean, module.running_var)
