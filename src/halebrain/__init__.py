"""HaleBrain detects anomalies in brain MRI scans.

Importing the package is cheap: the heavy libraries (torch, SimpleITK, nilearn) are imported by the modules
that use them, so that `halebrain --help` is fast. The names below are the public Python API.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from halebrain.api import (
        ExamPrediction,
        ExamScan,
        Prediction,
        Reconstruction,
        benchmark,
        calibrate,
        detect,
        detect_exam,
        detect_many,
        evaluate,
        load_model,
        make_cohort,
        make_folds,
        prepare,
        reconstruct,
        train_reconstructor,
        train_segmenter,
    )

__version__ = "0.2.0"
__all__ = [
    "ExamPrediction",
    "ExamScan",
    "Prediction",
    "Reconstruction",
    "__version__",
    "benchmark",
    "calibrate",
    "detect",
    "detect_exam",
    "detect_many",
    "evaluate",
    "load_model",
    "make_cohort",
    "make_folds",
    "prepare",
    "reconstruct",
    "train_reconstructor",
    "train_segmenter",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'halebrain' has no attribute '{name}'")
    return getattr(import_module("halebrain.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
