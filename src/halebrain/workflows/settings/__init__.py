"""Settings of every workflow: what a user may choose, each with its description, range and command-line option.

The command line makes its options from these classes, and Python fills them directly. These modules load no heavy
library, so that `halebrain --help` stays fast.
"""

from halebrain.workflows.settings.data import CohortSettings, ExportSettings, FoldSettings, PrepareSettings
from halebrain.workflows.settings.detection import BidsSettings, DemoSettings, DetectSettings, ExamSettings
from halebrain.workflows.settings.evaluation import BenchmarkSettings, EvaluateSettings
from halebrain.workflows.settings.models import DescribeSettings, JoinSettings, SecondLookOptions
from halebrain.workflows.settings.option import (
    BRAINS,
    EXTRACTORS,
    PATHOLOGIES,
    SOURCES,
    ManifestPath,
    Option,
    Output,
    Overwrite,
    check_value,
)
from halebrain.workflows.settings.scheduling import WHOLE, PartSettings, SchedulerSettings
from halebrain.workflows.settings.training import AdaptSettings, CalibrateSettings, TrainSettings, TuneSettings

__all__ = [
    "BRAINS",
    "EXTRACTORS",
    "PATHOLOGIES",
    "SOURCES",
    "WHOLE",
    "AdaptSettings",
    "BenchmarkSettings",
    "BidsSettings",
    "CalibrateSettings",
    "CohortSettings",
    "DemoSettings",
    "DescribeSettings",
    "DetectSettings",
    "EvaluateSettings",
    "ExamSettings",
    "ExportSettings",
    "FoldSettings",
    "JoinSettings",
    "ManifestPath",
    "Option",
    "Output",
    "Overwrite",
    "PartSettings",
    "PrepareSettings",
    "SchedulerSettings",
    "SecondLookOptions",
    "TrainSettings",
    "TuneSettings",
    "check_value",
]
