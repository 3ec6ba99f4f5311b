"""What is installed on this machine, and what is missing."""

import os
import platform
import re
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from halebrain.core.device import find_device
from halebrain.core.home import VARIABLE, halebrain_home, is_writable
from halebrain.models.store import DEFAULT_MODEL, stored_models
from halebrain.preprocessing.brain import deepbet, hdbet, synthstrip
from halebrain.training.devices import resolve_precision

_PACKAGES = (
    "halebrain",
    "torch",
    "numpy",
    "scipy",
    "nibabel",
    "SimpleITK",
    "nilearn",
    "pydicom",
    "lightning-fabric",
    "picsl_greedy",
)
_EXTRAS = {
    "compressed DICOM": ("pylibjpeg", "halebrain[dicom]"),
    "DICOM-SEG": ("highdicom", "halebrain[dicom]"),
    "BIDS validator": ("bids-validator-deno", "halebrain[bids]"),
    "registration by ANTs": ("antspyx", "halebrain[ants]"),
    "clusters through Dask": ("distributed", "halebrain[dask]"),
    "SLURM jobs": ("submitit", "halebrain[slurm]"),
    "IXI's table of ages (.xls)": ("xlrd", "halebrain[ixi]"),
}


def examine() -> dict[str, dict[str, Any]]:
    """Return section → item → status; nothing is changed, and no network is used."""
    return {
        "versions": _versions(),
        "machine": _machine(),
        "brain extraction": _brain_extractors(),
        "extras": _extras(),
        "home": _home(),
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing: reinstall HaleBrain"
    return found


def _machine() -> dict[str, str]:
    cuda = ", ".join(_gpu(number) for number in range(torch.cuda.device_count()))
    return {
        "system": platform.platform(),
        "cpu": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads in use",
        "memory": _memory(),
        "cuda": cuda if torch.cuda.is_available() else "none (everything runs on the CPU)",
        "mps": "available (on request: --device mps)" if torch.backends.mps.is_available() else "none",
        "bf16": _bf16(),
    }


def _memory() -> str:
    """Return how much memory the machine has, and how much of it can be had now."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "not known"
    available = _available_memory()
    return f"{total / 1e9:.1f} GB" + ("" if available is None else f", {available / 1e9:.1f} GB available")


def _available_memory() -> int | None:
    """Return how many bytes a new program may have; `None` where the system does not say."""
    # The free pages of `os.sysconf` do not include reclaimable caches.
    table = Path("/proc/meminfo")
    found = re.search(r"^MemAvailable:\s+(\d+) kB", table.read_text(), re.MULTILINE) if table.is_file() else None
    return None if found is None else 1024 * int(found[1])


def _gpu(number: int) -> str:
    """Return the name of a GPU, its memory, and how much of that is free."""
    name, total = torch.cuda.get_device_name(number), torch.cuda.get_device_properties(number).total_memory
    try:
        free = f"{torch.cuda.mem_get_info(number)[0] / 1e9:.1f} GB free"
    except RuntimeError as error:  # full, or in exclusive use by another process
        free = f"not usable now: {str(error).partition(chr(10))[0]}"
    return f"{name} ({total / 1e9:.1f} GB, {free})"


def _bf16() -> str:
    """Return whether the default device computes in bf16."""
    device = find_device("auto")
    where = "the GPU" if device.type == "cuda" else "the CPU"
    if resolve_precision("auto", device) == "bf16-mixed":
        return f"on {where}"
    return f"not on {where}: training uses single precision"


def _brain_extractors() -> dict[str, str]:
    weights = synthstrip.find_weights()
    by = f"weights {weights}" if weights else f"program {synthstrip.COMMAND}"
    return {
        "atlas": "available (needs no installation)",
        "synthstrip": by if synthstrip.is_available() else f"none: set {synthstrip.WEIGHTS_VARIABLE}",
        "hdbet": "there" if hdbet.is_available() else "none: pip install hd-bet",
        "deepbet": "available (T1 only)" if deepbet.is_available() else "none: pip install --no-deps deepbet",
    }


def _extras() -> dict[str, str]:
    found = {"dcm2niix": shutil.which("dcm2niix") or "none (pydicom reads DICOM)"}
    for what, (package, extra) in _EXTRAS.items():
        try:
            found[what] = f"{package} {version(package)}"
        except PackageNotFoundError:
            found[what] = f"none: pip install '{extra}'"
    return found


def _home() -> dict[str, str]:
    home = halebrain_home()
    folder = f"none: set {VARIABLE}"
    if home is not None:
        there = next(place for place in (home, *home.parents) if os.access(place, os.F_OK))
        folder = f"{home} ({'writable' if is_writable(home) else f'not writable: set {VARIABLE}'}, {_free(there)})"
    stored = stored_models()
    models = ", ".join(f"{m.name} ({m.origin}, {m.path.stat().st_size / 1e6:.1f} MB)" for m in stored)
    default = next((f"{m.name} ({m.origin})" for m in stored if m.name == DEFAULT_MODEL), None)
    return {
        "folder": folder,
        "temporary files": f"{tempfile.gettempdir()} ({_free(Path(tempfile.gettempdir()))}; TMPDIR names another)",
        "models by name": models or "none: halebrain models import BUNDLE",
        "model without --model": default or f"none: halebrain models import BUNDLE --name {DEFAULT_MODEL}",
    }


def _free(folder: Path) -> str:
    return f"{shutil.disk_usage(folder).free / 1e9:.0f} GB free"
