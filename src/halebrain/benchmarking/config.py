"""Configuration of a benchmark: the file of `halebrain benchmark -c FILE`."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from halebrain.core.config import Config
from halebrain.data.anomalies import AnomalySpec
from halebrain.preprocessing.pipeline import PreprocessingConfig
from halebrain.simulation.config import CohortConfig

SYNTHETIC = "synthetic"
"""The column of healthy test scans with synthetic anomalies."""
Score = Literal["fused", "segmenter"]
Settings = dict[str, Any]


class ReconstructorEntry(Config):
    """A reconstructor, trained once a seed.

    Args:
        settings: Of stage 1, over the defaults; at least `reconstructor`.
        row: Name of its row, scored by the residual alone; `None` = used for segmenters only.
    """

    settings: Settings
    row: str | None = None


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
    """

    reconstructor: str | None
    settings: Settings = Field(default_factory=dict)
    rows: dict[Score, str]
    block: str
    trained_on: str = ""
    each_pathology: tuple[str, ...] = ()
    each_count: tuple[int | None, ...] = (None,)
    settings_by_pathology: dict[str, Settings] = Field(default_factory=dict)


class MatrixConfig(Config):
    """A benchmark.

    Args:
        manifest: The scans; `None` = a virtual cohort, made as `cohort` says.
        cohort: That cohort.
        modality: The contrast that everything is trained and tested on.
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
        published: Row → column → (⌈Dice⌉, AUPRC) in %, printed beside ours.
    """

    manifest: Path | None = None
    cohort: CohortConfig = CohortConfig()
    modality: str = "FLAIR"
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
        if self.manifest is not None and self.folds:
            raise ValueError("give a manifest or folds, not both")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table."""
        return (*self.pathologies, SYNTHETIC) if self.synthetic is not None else self.pathologies
