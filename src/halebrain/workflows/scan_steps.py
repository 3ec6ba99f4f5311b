"""Progress of a detection: steps of one scan or exam, weighted by duration, in the bar over all scans or exams."""

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from halebrain.core.progress import ProgressBar

if TYPE_CHECKING:
    from halebrain.inference.exams import Exam
    from halebrain.inference.predictor import Predictor
    from halebrain.inference.scans import ScanInput

READING, NETWORKS, MARKING, PAGE = "reading", "networks", "marking", "page"


class ScanSteps:
    """Moves a bar through one of its items.

    Args:
        bar: Of all scans; `None` = no progress bar.
        seconds: Step → about how long it takes, in the order in which they come.
        passes: How often the networks go over the scan.
        prefix: Stands before the name of a step.
    """

    def __init__(
        self,
        bar: ProgressBar | None = None,
        seconds: Mapping[str, float] | None = None,
        *,
        passes: int = 1,
        prefix: str = "",
    ) -> None:
        self._bar, self._seconds, self._passes, self._prefix = bar, seconds or {}, passes, prefix
        self._first, self._passed = 0.0 if bar is None else bar.completed, 0

    def begin(self, step: str) -> None:
        """Report that a step begins and the earlier ones are done."""
        self._reach(step, 0.0)

    def one_pass(self) -> None:
        """Report one more pass of the networks."""
        self._passed += 1
        self._reach(NETWORKS, self._passed / self._passes)

    def _reach(self, step: str, part: float) -> None:
        """Show that a step is done in part."""
        if self._bar is None:
            return
        names = list(self._seconds)
        before = sum(self._seconds[name] for name in names[: names.index(step)])
        done = (before + part * self._seconds[step]) / sum(self._seconds.values())
        self._bar.reach(self._first + done, f"{self._prefix}{step}")


class ExamSteps:
    """Moves a bar through one of its items, an exam whose scans are processed at once.

    Args:
        bar: Of all exams; `None` = no progress bar.
        seconds: Step → about how long it takes for one scan.
        scans: Scans of the exam.
        prefix: Stands before the name of a step.
    """

    def __init__(
        self,
        bar: ProgressBar | None = None,
        seconds: Mapping[str, float] | None = None,
        *,
        scans: int = 1,
        prefix: str = "",
    ) -> None:
        self._bar, self._seconds, self._prefix, self._done = bar, seconds or {}, prefix, 0.0
        per_scan = sum(time for step, time in self._seconds.items() if step != PAGE)
        self._total = scans * per_scan + self._seconds.get(PAGE, 0.0)
        self._first = 0.0 if bar is None else bar.completed
        self._lock = threading.Lock()

    def tell(self, step: str, name: str) -> None:
        """Report that a step is done for a scan; from any thread."""
        if self._bar is None:
            return
        with self._lock:
            self._done = min(self._done + self._seconds.get(step, 0.0), self._total)
            self._bar.reach(self._first + self._done / self._total, f"{self._prefix}{name}: {step}")

    def page(self) -> None:
        """Report that the page is drawn, the last step."""
        if self._bar is not None:
            self._bar.reach(self._first + 1 - self._seconds[PAGE] / self._total, f"{self._prefix}{PAGE}")


def begin_exam(bar: ProgressBar | None, exam: "Exam", predictor: "Predictor", *, named: bool) -> ExamSteps:
    """Return the progress reporter of one exam, silent without a bar; `named` = each step follows its name."""
    passes = len(predictor.levels) * predictor.draws
    seconds = {
        READING: 0.5,
        "registration": 2.0,
        "preprocessing": 2.0,
        NETWORKS: 4.0 * passes,
        "comparison": 2.0,
        MARKING: 0.7,
        PAGE: 3.0,
    }
    return ExamSteps(bar, seconds, scans=len(exam.scans), prefix=f"{exam.name}: " if named else "")


def begin_scan(bar: ProgressBar | None, scan: "ScanInput", predictor: "Predictor", *, named: bool) -> ScanSteps:
    """Return the progress reporter of one scan, which begins with reading; `bar` and `named` as in `begin_exam`."""
    passes = len(predictor.levels) * predictor.draws
    prefix = f"{scan.name}: " if named else ""
    steps = ScanSteps(bar, _seconds(predictor, scan, passes), passes=passes, prefix=prefix)
    steps.begin(READING)
    return steps


def _seconds(predictor: "Predictor", scan: "ScanInput", passes: int) -> dict[str, float]:
    """Return the approximate duration of each step on two cores, to estimate the time left."""
    config = predictor.preprocessor.config
    is_found = scan.brain_mask is None and config.brain != "stripped"
    return {
        READING: 0.5,
        "brain": 4.0 if is_found else 0.5,
        "registration": 0.0 if config.registration == "none" else 3.0,
        "denoising": 1.0 if config.denoising_iterations else 0.0,
        "resample": 0.5,
        "bias correction": 0.0 if config.bias_correction == "none" else 1.5,
        "recognition": 1.0,
        NETWORKS: 2.0 * passes,
        PAGE: 4.0,
    }
