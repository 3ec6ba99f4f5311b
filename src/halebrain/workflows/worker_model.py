"""The model of a run in its workers: loaded once in each, on a GPU once for all, and everywhere the same one."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from multiprocessing import get_context
from multiprocessing.managers import BaseManager
from threading import Lock
from typing import Any

from halebrain.core.device import find_device
from halebrain.core.errors import DataError
from halebrain.core.parallel import Schedule
from halebrain.core.types import FloatArray, MaskArray
from halebrain.inference.predictor import Predictor, WorkingMaps
from halebrain.inference.remote import RemotePredictor
from halebrain.preprocessing.pipeline import WorkingScan
from halebrain.workflows.detector import Detector, load_detector
from halebrain.workflows.settings import DetectSettings


@dataclass(frozen=True)
class NetworkAddress:
    """Where a process answers that runs the networks for others, its key, and its device."""

    address: str
    key: bytes = field(repr=False)
    device: str


@dataclass(frozen=True)
class WorkerModel:
    """How the function of a run gets its model, in whichever process.

    Args:
        settings: How scans are processed.
        sha256: Hash of the model that every worker must find.
        networks: The process that runs the networks for all workers; `None` = each worker runs its own.
        own: The model of this process; a worker has none until it loads its own.
    """

    settings: DetectSettings
    sha256: str
    networks: NetworkAddress | None = None
    own: Detector | None = field(default=None, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "own": None}

    def detector(self) -> Detector:
        """Return the model, which every worker loads once."""
        return self.own or _loaded(self)


@contextmanager
def worker_model(settings: DetectSettings, schedule: Schedule) -> Iterator[WorkerModel]:
    """Check model and device, which concern all scans, and give the model for the function of a run.

    On a GPU of this machine one process runs the networks; the workers prepare scans for it and write the results.

    Raises:
        HalebrainError: Model or device cannot be used.
    """
    if schedule.is_here:
        detector = load_detector(settings)
        yield WorkerModel(settings, detector.predictor.bundle.sha256, own=detector)
        return
    # The devices of a cluster are those of its workers.
    device = "" if schedule.is_on_cluster else find_device(settings.device).type
    own = load_detector(replace(settings, device="cpu"))
    sha256 = own.predictor.bundle.sha256
    relayed = replace(settings, notify=schedule.relayed(settings.notify))
    if device in ("", "cpu"):
        yield WorkerModel(relayed, sha256, own=own)
        return
    with network_process(settings) as networks:
        yield WorkerModel(replace(relayed, device="cpu"), sha256, networks, own)


@lru_cache(maxsize=1)
def _loaded(model: WorkerModel) -> Detector:
    detector = load_detector(model.settings)
    found = detector.predictor.bundle.sha256
    if found != model.sha256:
        raise DataError(
            "every worker must find the same model",
            received=f"{found[:12]} instead of {model.sha256[:12]}",
            where=model.settings.model or "the bundled model",
            remedy="put the model where all workers read the same file, and do not change it during a run",
        )
    if model.networks is None:
        return detector
    connected = _NetworkManager(model.networks.address, model.networks.key)
    connected.connect()
    networks = connected.networks()  # type: ignore[attr-defined]
    return replace(detector, predictor=RemotePredictor(detector.predictor, networks, model.networks.device))


class Networks:
    """The networks of a model for other processes, one scan at a time."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor, self._lock = predictor, Lock()

    def predict_working(self, scan: WorkingScan, contrast: str | None) -> WorkingMaps:
        """Return the maps of a scan, as the predictor does."""
        with self._lock:
            return self._predictor.predict_working(scan, contrast)

    def fill_holes(self, scan: WorkingScan, hole: MaskArray) -> FloatArray | None:
        """Return a scan with its holes filled, as the predictor does."""
        with self._lock:
            return self._predictor.fill_holes(scan, hole)

    def reconstruct_levels(self, scan: WorkingScan) -> dict[str, FloatArray]:
        """Return the reconstruction at each level, as the predictor does."""
        with self._lock:
            return self._predictor.reconstruct_levels(scan)


class _NetworkManager(BaseManager):
    """Serves one `Networks`; the engine is that of the standard library."""


_settings: list[DetectSettings] = []


@cache
def _networks() -> Networks:
    """Return the networks of the process that runs them."""
    return Networks(load_detector(_settings[0]).predictor)


_NetworkManager.register(
    "networks", callable=_networks, exposed=("predict_working", "fill_holes", "reconstruct_levels")
)


@contextmanager
def network_process(settings: DetectSettings) -> Iterator[NetworkAddress]:
    """Start a process that runs the networks for others, and end it with the block."""
    key = secrets.token_bytes(32)
    manager = _NetworkManager(authkey=key, ctx=get_context("spawn"))
    manager.start(initializer=_begin_networks, initargs=(settings,))
    try:
        yield NetworkAddress(str(manager.address), key, str(find_device(settings.device)))
    finally:
        manager.shutdown()


def _begin_networks(settings: DetectSettings) -> None:
    _settings.append(settings)
    _networks()
