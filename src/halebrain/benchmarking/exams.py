"""Exams of a benchmark: the scans of a person at one time on the common grid, and their scores, fused.

As in `detect --exam`, each contrast is brought to a common scale by its healthy scans, here those of the validation
split: its zero is the threshold that marks at most 1 ml in the median healthy person.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from halebrain.benchmarking.inputs import whole_exams
from halebrain.benchmarking.judge import Maps, Scorer
from halebrain.core.progress import track
from halebrain.core.types import MaskArray, voxel_mm3_of
from halebrain.inference.fusion import ContrastScore, fuse_contrasts
from halebrain.inference.scans import AnnotatedScan
from halebrain.io.manifest import Manifest
from halebrain.thresholds.exam import exam_key
from halebrain.thresholds.false_positive_volume import fit_false_volume
from halebrain.thresholds.scored_map import ScoredMap

_HEALTHY_ML = 1.0
_LEAST, _MOST = 1e-4, 1 - 1e-4
"""A zero lies within (0, 1), also where healthy scans have no score at all."""


@dataclass(frozen=True)
class AnnotatedExam(AnnotatedScan):
    """An exam as a scan: the first of its scans, with the brain of all of them and the lesion that is annotated.

    Args:
        parts: Its scans, in the order of the contrasts.
    """

    parts: tuple[AnnotatedScan, ...] = ()


def exams_of(scans: Mapping[str, Sequence[AnnotatedScan]]) -> list[AnnotatedExam]:
    """Return the exams that have every contrast; `scans` are by contrast, on one working grid."""
    by_name = {one.record.scan_id: one for own in scans.values() for one in own}
    rows = Manifest(tuple(one.record for one in by_name.values()))
    found = []
    for records in whole_exams(rows, list(scans)).values():
        parts = tuple(by_name[record.scan_id] for record in records)
        first = next((part for part in parts if part.lesion.any()), parts[0])
        brain: MaskArray = np.any([part.scan.brain_mask for part in parts], axis=0)
        key = exam_key([record.contrast for record in records])
        record = replace(first.record, modality=str(key), entities=None)
        found.append(AnnotatedExam(record, replace(parts[0].scan, brain_mask=brain), first.lesion, parts))
    return found


def healthy_zeros(score: Scorer, val: Sequence[AnnotatedScan], min_lesion_mm3: float) -> dict[str, float]:
    """Return the zero of each row of one contrast: the score that is high in its healthy validation scans."""
    kept: dict[str, list[ScoredMap]] = {}
    healthy = [one for one in val if one.record.is_healthy]
    for one in track(healthy, description="Healthy scans", total=len(healthy)):
        for title, values in score(one).items():
            scored = ScoredMap(
                values,
                one.scan.brain_mask,
                voxel_mm3=voxel_mm3_of(one.scan.grid.affine),
                min_lesion_mm3=min_lesion_mm3,
                modality=one.record.contrast,
                scan_score=0.0,
                subject=one.record.subject,
            )
            scored.lowest_threshold(_HEALTHY_ML)  # cached, here, where the bar shows it
            kept.setdefault(title, []).append(scored)
    zeros = {title: fit_false_volume(scans, _HEALTHY_ML)[0] for title, scans in kept.items()}
    return {title: float(np.clip(zero, _LEAST, _MOST)) for title, zero in zeros.items()}


def exam_scores(alone: Sequence[Scorer], zeros: Sequence[Mapping[str, float]], fusion: str) -> Scorer:
    """Return what fuses the maps of each contrast; both are in the order of the contrasts."""

    def score(exam: AnnotatedScan) -> Maps:
        assert isinstance(exam, AnnotatedExam)
        maps = [own(part) for own, part in zip(alone, exam.parts, strict=True)]
        return {
            title: fuse_contrasts(
                [
                    ContrastScore(part.record.contrast, own[title], part.scan.brain_mask, zero[title])
                    for part, own, zero in zip(exam.parts, maps, zeros, strict=True)
                ],
                fusion,
            )
            for title in maps[0]
        }

    return score
