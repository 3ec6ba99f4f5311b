"""Configuration of a benchmark: the file of `halebrain benchmark -c FILE`."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from halebrain.core.config import Config
from halebrain.core.modality import standard_modality
from halebrain.data.anomalies import AnomalySpec
from halebrain.evaluation.contrasts import Contrast, Relation
from halebrain.inference.fusion import DEFAULT as DEFAULT_FUSION
from halebrain.inference.fusion import FUSIONS
from halebrain.preprocessing.pipeline import PreprocessingConfig
from halebrain.simulation.config import CohortConfig

SYNTHETIC = "synthetic"
"""The column of healthy test scans with synthetic anomalies."""
EXAM = "exam"
"""What is named in the place of a contrast where all of them are judged together."""
Score = Literal["fused", "segmenter"]
Settings = dict[str, Any]


def row_of(name: str, modality: str) -> str:
    """Return the name of a method's row on one of several contrasts, or on exams: "SADM_res exam"."""
    return f"{name} {modality}"


class ReconstructorEntry(Config):
    """A reconstructor, trained once a seed.

    Args:
        settings: Of stage 1, over the defaults; at least `reconstructor`.
        row: Name of its row, scored by the residual alone; `None` = used for segmenters only.
        once: Train it with the first seed on the first fold only, as where no contrast needs its row.
    """

    settings: Settings
    row: str | None = None
    once: bool = False


class SegmenterEntry(Config):
    """A segmenter, trained once a seed and, where asked, once for each training pathology and number of scans.

    Args:
        reconstructor: The one that it is trained on, a key of `reconstructors`; `None` = both at once (DRAEM-Net).
        settings: Of stage 2 (or of the joint training), over the defaults.
        rows: Name of the row for each way to score: "segmenter" = its probability alone, "fused" = with the residual.
        block: Heading under which the rows stand.
        trained_on: Name of its synthetic anomalies in the table ("DRAEM").
        each_pathology: Train once on each of these annotated pathologies.
        each_count: Train once on each of these numbers of annotated subjects; `None` among them = all.
        settings_by_pathology: Further settings of the training on a pathology of `each_pathology`, as the number of
            steps, where an epoch of each has its own length.
        once: Train it with the first seed on the first fold only, as where no contrast needs its rows.
    """

    reconstructor: str | None
    settings: Settings = Field(default_factory=dict)
    rows: dict[Score, str]
    block: str
    trained_on: str = ""
    each_pathology: tuple[str, ...] = ()
    each_count: tuple[int | None, ...] = (None,)
    settings_by_pathology: dict[str, Settings] = Field(default_factory=dict)
    once: bool = False


class ContrastEntry(Config):
    """A contrast that is stated before the run and tested after it, Holm-corrected for all of them.

    Args:
        name: In words.
        first: Name of the rows that should be better ("SADM_res"), in all trainings on diseases.
        second: Name of what they are compared with, in the same training where there is one. Of several names, the row
            with the highest AUPRC on the same scans is taken.
        columns: Which diseases: those that `first` learned from, "unseen" ones, or "all".
        margin: How much lower the AUPRC of `first` may be and still count as not inferior; 0 = it must be higher.
    """

    name: str
    first: str
    second: str | tuple[str, ...]
    columns: Relation
    margin: float = Field(default=0.0, ge=0, lt=1)

    @property
    def contrast(self) -> Contrast:
        """The contrast."""
        second = (self.second,) if isinstance(self.second, str) else self.second
        return Contrast(self.name, self.first, second, self.columns, self.margin)


class MatrixConfig(Config):
    """A benchmark.

    Args:
        manifest: The scans; `None` = a virtual cohort, made as `cohort` says.
        cohort: That cohort; it is scanned with `modality` or `modalities`, and not with its own.
        modality: The contrast that everything is trained and tested on.
        modalities: Several contrasts instead of one: everything is trained and tested on each, in its own rows, and
            test scans of one person and session are also judged together, as exams, in further rows.
        fusion: How the scores of an exam are fused; a name in `FUSIONS`.
        pathologies: Columns of the table: annotated scans of the split "test".
        synthetic: Anomalies put into the healthy validation and test scans, for one more column, "synthetic", as the
            paper has it; `None` = no such column.
        preprocessing: The same for every method.
        seeds: Every training is done once with each.
        folds: Manifests to run instead of one, each a fold with its own splits; empty = `manifest` alone.
        reconstructor_defaults: Settings of stage 1 shared by all.
        segmenter_defaults: Settings of stage 2 shared by all.
        joint_defaults: Settings of a joint training.
        postprocessing: Settings of the anomaly map, the same for every method.
        reconstructors: By name.
        segmenters: By name.
        baselines: Baselines without training, names of `BASELINES`.
        reference: The row that every other one is compared with.
        contrasts: What is tested, stated before the run.
        published: Row → column → (⌈Dice⌉, AUPRC) in %, printed beside ours.
    """

    manifest: Path | None = None
    cohort: CohortConfig = CohortConfig()
    modality: str = "FLAIR"
    modalities: tuple[str, ...] = ()
    fusion: str = DEFAULT_FUSION
    pathologies: tuple[str, ...] = ("tumour", "stroke", "ms", "wmh")
    synthetic: AnomalySpec | None = None
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    seeds: tuple[int, ...] = (0, 1, 2)
    folds: tuple[Path, ...] = ()
    reconstructor_defaults: Settings = Field(default_factory=dict)
    segmenter_defaults: Settings = Field(default_factory=dict)
    joint_defaults: Settings = Field(default_factory=dict)
    postprocessing: Settings = Field(default_factory=dict)
    reconstructors: dict[str, ReconstructorEntry]
    segmenters: dict[str, SegmenterEntry] = Field(default_factory=dict)
    baselines: tuple[str, ...] = ("intensity rank",)
    reference: str
    contrasts: tuple[ContrastEntry, ...] = ()
    published: dict[str, dict[str, tuple[float, float]]] = Field(default_factory=dict)

    def model_post_init(self, _: Any, /) -> None:
        """Check what the fields cannot say alone."""
        for name, entry in self.segmenters.items():
            if entry.reconstructor is not None and entry.reconstructor not in self.reconstructors:
                raise ValueError(
                    f"segmenter '{name}' needs '{entry.reconstructor}', which is not defined under reconstructors"
                )
            if foreign := sorted(set(entry.settings_by_pathology) - set(entry.each_pathology)):
                raise ValueError(f"segmenter '{name}' has settings for '{foreign[0]}', which is not in each_pathology")
            if not entry.rows:
                raise ValueError(f"segmenter '{name}' has no row")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds must be given, each once")
        if self.synthetic is not None and SYNTHETIC in self.pathologies:
            raise ValueError(f"'{SYNTHETIC}' is the column of synthetic anomalies and cannot be a pathology")
        self._check_exams()
        self._check_once()
        named = [entry.name for entry in self.contrasts]
        if len(set(named)) < len(named):
            raise ValueError("every contrast needs a unique name")
        self._check_tables()

    def _check_tables(self) -> None:
        """Check where scans come from."""
        if self.manifest is not None and self.folds:
            raise ValueError("give a manifest or folds, not both")
        if len(set(self.folds)) < len(self.folds):
            raise ValueError("folds must be different tables: one given twice would count as further runs")
        if self.cohort.modalities not in (self.every_modality, CohortConfig().modalities):
            raise ValueError("the cohort is scanned with modality or modalities of the benchmark: remove its own")

    def _check_exams(self) -> None:
        """Check several contrasts, and the fusion of their scores."""
        FUSIONS.get(self.fusion)
        names = {standard_modality(name) for name in self.modalities}
        if self.modalities and len(names) < max(len(self.modalities), 2):
            raise ValueError("modalities must be two contrasts or more, each once; of one contrast give modality")
        if self.modalities and self.synthetic is not None:
            # Each contrast would get its own.
            raise ValueError("scans of an exam have no synthetic anomalies in common: give modalities or synthetic")

    def _check_once(self) -> None:
        """Check that what is trained once has only what is trained once on top, and is in no contrast."""
        for name, entry in self.segmenters.items():
            if entry.reconstructor is not None and self.reconstructors[entry.reconstructor].once and not entry.once:
                raise ValueError(
                    f"segmenter '{name}' is trained more often than its reconstructor, which has once: true"
                )
        often = {row for one in self.segmenters.values() if not one.once for row in one.rows.values()}
        often |= {one.row for one in self.reconstructors.values() if not one.once and one.row is not None}
        single = {row for one in self.segmenters.values() if one.once for row in one.rows.values()}
        single |= {one.row for one in self.reconstructors.values() if one.once and one.row is not None}
        if self.modalities:
            often, single = (
                {row_of(name, of) for name in names for of in (*self.modalities, EXAM)} for names in (often, single)
            )
        for stated in self.contrasts:
            for row in (stated.contrast.first, *stated.contrast.second):
                if row in single - often:
                    raise ValueError(f"the contrast '{stated.name}' needs '{row}' in every run, which has once: true")

    @property
    def every_modality(self) -> tuple[str, ...]:
        """The contrasts of the scans."""
        return self.modalities or (self.modality,)

    def of_modality(self, name: str) -> "MatrixConfig":
        """Return the benchmark of one contrast alone."""
        return self.model_copy(update={"modality": name, "modalities": ()})

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table."""
        return (*self.pathologies, SYNTHETIC) if self.synthetic is not None else self.pathologies
