"""Scores of the model and its adapted versions for a scan, over the voxels that count, on the working grid."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from halebrain.core.files import atomic_path
from halebrain.core.mask import Cut
from halebrain.core.modality import standard_modality
from halebrain.core.types import FloatArray, MaskArray
from halebrain.evaluation.case import Case
from halebrain.evaluation.curve import Curve
from halebrain.inference.cohort import AnnotatedScan
from halebrain.inference.resegment import Resegmenter
from halebrain.io.manifest import ScanRecord
from halebrain.io.volume import read_mask, read_volume
from halebrain.models.segmentation import Segmenter
from halebrain.preprocessing.prepared import open_scan
from halebrain.training.loop import Weights


class JudgedScan(AnnotatedScan):
    """A prepared scan with its reference, for evaluation before and after."""

    @property
    def labels(self) -> MaskArray:
        """The lesion over the voxels that count, `(m,)`."""
        labels: MaskArray = self.lesion[self.region]
        return labels

    def case(self, values: FloatArray, cut: Cut | None) -> Case:
        """Return the scan with scores `(m,)` of the voxels that count, for evaluation; `None` = no threshold."""
        scan = self.scan
        score = np.zeros(scan.brain_mask.shape, dtype=np.float32)
        score[self.region] = values
        return Case.of(
            self.record,
            reference=self.lesion,
            brain_mask=scan.brain_mask,
            affine=scan.grid.affine,
            score=score,
            cut=cut,
        )


def open_judged(predictor: Resegmenter, record: ScanRecord) -> JudgedScan:
    """Read a prepared scan and its truth."""
    volume = read_volume(record.image)
    scan = open_scan(predictor.preprocessor, volume, record.image, brain_mask=record.brain_mask, space=record.space)
    lesion = np.zeros_like(scan.brain_mask)
    if record.lesion is not None and not record.is_healthy:
        lesion = read_mask(record.lesion, volume)
    return JudgedScan(record, scan, lesion)


def score_versions(predictor: Resegmenter, judged: JudgedScan, versions: Iterable[Weights], path: Path) -> FloatArray:
    """Return the scores of the voxels that count, `(1 + versions, m)`: the model itself first, then each version.

    Args:
        predictor: The model.
        judged: The scan.
        versions: Weights of the segmenter.
        path: Where the scores are kept; what is there is taken.
    """
    if path.exists():
        kept: FloatArray = np.load(path)
        return kept
    assert predictor.bundle.segmenter is not None  # only detectors are adapted
    segmenter = Segmenter(predictor.bundle.segmenter.config).to(predictor.device)
    known = predictor.know(judged.scan, modality=standard_modality(judged.record.modality))
    found = [known.score[judged.region]]
    for weights in versions:
        segmenter.load_state_dict(weights)
        found.append(predictor.score(known, segmenter.eval())[judged.region])
    scores = np.stack(found).astype(np.float32)
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, scores)
    return scores


def auprc_of(judged: JudgedScan, scores: FloatArray) -> list[float]:
    """Return the AUPRC of each row of `scores` `(versions, m)`."""
    return [Curve.of(values, judged.labels).average_precision for values in scores]
