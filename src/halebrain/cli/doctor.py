"""`halebrain doctor`: what this installation has and lacks."""

from typing import Any

import typer

from halebrain.cli import options
from halebrain.cli.results import to_json

_PACKAGES = ("halebrain", "torch", "numpy", "scipy", "nibabel", "SimpleITK", "nilearn", "pydicom", "lightning")
_EXTRAS = {
    "compressed DICOM": ("pylibjpeg", "halebrain[dicom]"),
    "DICOM-SEG": ("highdicom", "halebrain[dicom]"),
    "BIDS validator": ("bids-validator-deno", "halebrain[bids]"),
    "registration by ANTs": ("antspyx", "halebrain[ants]"),
    "clusters through Dask": ("distributed", "halebrain[dask]"),
    "IXI's table of ages (.xls)": ("xlrd", "halebrain[ixi]"),
}


def doctor(as_json: options.Json = False) -> None:
    """Say which versions, devices, brain extractors, extras and models are there, and what would bring the others."""
    found = examine()
    if as_json:
        typer.echo(to_json(found))
        return
    for title, entries in found.items():
        typer.echo(f"{title}")
        for name, value in entries.items():
            typer.echo(f"  {name:<28} {value}")


def examine() -> dict[str, dict[str, Any]]:
    """Return section → what → how it stands; nothing is changed and no network is asked."""
    return {
        "versions": _versions(),
        "machine": _machine(),
        "brain extraction": _brain_extractors(),
        "extras": _extras(),
        "home": _home(),
    }


def _versions() -> dict[str, str]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing: install HaleBrain again"
    return found


def _machine() -> dict[str, str]:
    import os
    import platform

    import torch

    cuda = ", ".join(torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count()))
    return {
        "system": platform.platform(),
        "cpu": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads in use",
        "cuda": cuda if torch.cuda.is_available() else "none (all runs on the CPU)",
        "mps": "there (on request: --device mps)" if torch.backends.mps.is_available() else "none",
    }


def _brain_extractors() -> dict[str, str]:
    from halebrain.preprocessing.brain import hdbet, synthstrip

    weights = synthstrip.find_weights()
    by = f"weights {weights}" if weights else f"program {synthstrip.COMMAND}"
    return {
        "atlas": "there (needs nothing)",
        "synthstrip": by if synthstrip.is_available() else f"none: set {synthstrip.WEIGHTS_VARIABLE}",
        "hdbet": "there" if hdbet.is_available() else "none: pip install hd-bet",
    }


def _extras() -> dict[str, str]:
    import shutil
    from importlib.metadata import PackageNotFoundError, version

    found = {"dcm2niix": shutil.which("dcm2niix") or "none (pydicom reads DICOM)"}
    for what, (package, extra) in _EXTRAS.items():
        try:
            found[what] = f"{package} {version(package)}"
        except PackageNotFoundError:
            found[what] = f"none: pip install '{extra}'"
    return found


def _home() -> dict[str, str]:
    import os
    import shutil

    from halebrain.core.home import VARIABLE, halebrain_home
    from halebrain.models.store import DEFAULT_MODEL, stored_models

    home = halebrain_home()
    there = next(place for place in (home, *home.parents) if place.exists())
    writable = "writable" if os.access(there, os.W_OK) else f"not writable: set {VARIABLE}"
    stored = stored_models()
    models = ", ".join(f"{m.name} ({m.origin}, {m.path.stat().st_size / 1e6:.1f} MB)" for m in stored)
    default = next((f"{m.name} ({m.origin})" for m in stored if m.name == DEFAULT_MODEL), None)
    return {
        "folder": f"{home} ({writable}, {shutil.disk_usage(there).free / 1e9:.0f} GB free)",
        "models by name": models or "none: halebrain models import BUNDLE",
        "model without --model": default or f"none: halebrain models import BUNDLE --name {DEFAULT_MODEL}",
    }
