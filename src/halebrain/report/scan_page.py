"""The page of one scan: findings, reliability and a viewer, in one self-contained file."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from halebrain.core.about import NOTICE
from halebrain.core.exam_provenance import ExamProvenance
from halebrain.core.provenance import ChosenThreshold, Provenance, QualityReport
from halebrain.core.types import TEMPLATE_SPACE, Affine, Lesion
from halebrain.report.display import DisplayGrid
from halebrain.report.embedding import FORMAT, ShownVolume, threshold_level
from halebrain.report.methods_text import methods_text
from halebrain.report.page import page_template, script_json
from halebrain.report.verdict import HealthyReference, verdict_of
from halebrain.thresholds.text import marking_text

VIEW_HINT = 'id="view-hint"'
"""Marker of pages to which `halebrain view` can add review controls; no file name can contain it."""
PLANES = ("axial", "coronal", "sagittal")
_OBLIQUE_DEGREES = 3.0
_QUALITY_NAMES = {
    "brain_method": "brain extraction",
    "brain_confidence": "confidence of the brain mask",
    "brain_volume_ml": "brain volume, ml",
    "working_grid_brain_ml": "brain in template space, ml",
    "ventricles_ml": "ventricles, about, ml",
    "registration_mask_dice": "overlap with the template's brain (Dice)",
    "registration_nmi": "normalised mutual information with the template",
    "registration_margin": "fit, relative to the best rotated template",
    "registration_scale": "size, relative to the template",
    "registration_failed": "registration failed",
    "orientation_ratio": "fit upright, relative to inverted",
}


@dataclass(frozen=True)
class ShownContrast:
    """Another contrast of an exam: its name, and the names of its scan and pseudo-healthy scan among the volumes."""

    name: str
    scan: str
    healthy: str


@dataclass(frozen=True)
class ExamOnPage:
    """What the page of an exam holds beyond that of a scan.

    Args:
        name: The contrast of the scan that the page is on, the reference.
        others: The other contrasts.
        lead: When a voxel is marked.
        columns: Headings of what each contrast alone shows of a finding.
        support: Its cells, one row a finding.
        methods: Sentences on registration and fusion.
        scans: Cells of a table of the scans, with their headings first.
        made: The provenance of the exam.
    """

    name: str
    others: Sequence[ShownContrast]
    lead: str
    columns: Sequence[str]
    support: Sequence[Sequence[str]]
    methods: str
    scans: Sequence[Sequence[str]]
    made: ExamProvenance


@dataclass(frozen=True)
class ScanPage:
    """What the page of one scan is made of; `template_to_native` is world-to-world, mm, `None` = unknown."""

    title: str
    grid: DisplayGrid
    volumes: Mapping[str, ShownVolume]
    findings: Sequence[Lesion]
    provenance: Provenance
    threshold: ChosenThreshold
    template_to_native: Affine | None
    mosaic: bytes = b""
    region_names: Sequence[str] = ()
    exam: ExamOnPage | None = None


def scan_html(page: ScanPage) -> str:
    """Return the page as HTML; every text is escaped, and nothing is fetched from anywhere."""
    exam = page.exam
    methods, references = methods_text(page.provenance, contrast=None if exam is None else exam.made.contrasts[0])
    kind = "scan" if exam is None or not exam.others else "exam"  # whose score is compared with healthy ones
    document = page.provenance.to_json() if exam is None else exam.made.to_json()
    return page_template("scan.html.j2").render(
        title=page.title,
        lead=marking_text(page.threshold) if exam is None else exam.lead,
        exam=exam,
        disclaimer=NOTICE,
        kind=kind,
        verdict=verdict_of(page.provenance, page.findings, kind=kind),
        healthy=HealthyReference.of(page.provenance, kind=kind),
        score_note=page.provenance.scan_score_note or "",
        level=threshold_level(page.volumes["score"], page.threshold.value),
        minimum=f"{page.threshold.min_lesion_mm3:g}",
        planes=PLANES,
        shown_how=_shown_how(page),
        findings=page.findings,
        space="MNI" if _space(page) == TEMPLATE_SPACE else _space(page),
        view_hint=Markup(VIEW_HINT),
        mosaic=base64.b64encode(page.mosaic).decode("ascii"),
        quality=quality_facts(page.provenance.qc),
        methods=methods if exam is None else f"{exam.methods} {methods}",
        references=references,
        provenance=json.dumps(document, indent=2, ensure_ascii=False),
        data=script_json(_page_data(page)),
        # Base64 holds no character that HTML would take for its own.
        volumes=[(name, Markup(volume.encoded())) for name, volume in page.volumes.items()],
    )


def quality_facts(report: QualityReport) -> list[tuple[str, str]]:
    """Return the quality figures as (name, value), flags aside."""
    facts = []
    for key, value in report.to_json().items():
        if key in ("flags", "out_of_distribution") or isinstance(value, Mapping | list):
            continue
        said = "–" if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"{value}"
        facts.append((_QUALITY_NAMES.get(key, key.replace("_", " ")), said))
    return facts


def _page_data(page: ScanPage) -> dict[str, Any]:
    threshold, grow_to = page.threshold, page.threshold.grow_to
    to_world = page.grid.affine @ page.grid.to_voxel
    to_mni = None if page.template_to_native is None else np.linalg.inv(page.template_to_native) @ to_world
    return {
        "format": FORMAT,
        "name": page.title,
        "space": "MNI" if _space(page) == TEMPLATE_SPACE else _space(page),
        "size_mm": [round(v, 4) for v in page.grid.size_mm],
        "threshold": {
            "value": threshold.value,
            "level": threshold_level(page.volumes["score"], threshold.value),
            "grow": None if grow_to is None else threshold_level(page.volumes["score"], grow_to),
        },
        "min_lesion_mm3": threshold.min_lesion_mm3,
        "volumes": {name: volume.about() for name, volume in page.volumes.items()},
        "findings": [
            {"number": f.lesion, "place_mm": page.grid.place_mm(f.peak), "region": f.region, "volume_ml": f.volume_ml}
            for f in page.findings
        ],
        "region_names": list(page.region_names),
        **_contrasts(page),
        "to_voxel": _rounded(page.grid.to_voxel),
        "to_world": _rounded(to_world),
        "to_mni": None if to_mni is None else _rounded(to_mni),
    }


def _contrasts(page: ScanPage) -> dict[str, Any]:
    if page.exam is None:
        return {}
    return {"contrasts": [{"name": one.name, "scan": one.scan, "healthy": one.healthy} for one in page.exam.others]}


def _rounded(matrix: npt.NDArray[np.float64]) -> list[list[float]]:
    return [[round(float(v), 6) for v in row] for row in matrix]


def _space(page: ScanPage) -> str:
    return page.provenance.space or TEMPLATE_SPACE


def _shown_how(page: ScanPage) -> str:
    size = " × ".join(f"{mm:.3g}" for mm in page.grid.spacing_mm(page.grid.fine_mm))
    exact = page.grid.spacing_mm(page.grid.fine_mm) == page.grid.native_mm
    counts = (
        "Counts at the saved threshold agree with the table up to rounding"
        if exact
        else "Counts at other thresholds are computed on these voxels and can differ slightly from the table, "
        "which is computed at full resolution"
    )
    parts = [
        f"Shown: the bounding box of the brain, voxels of {size} mm, 8 bits; the files hold full resolution. {counts}.",
        "Letters: R, L = the patient's right and left, A, P = front and back, S, I = up and down.",
    ]
    if page.grid.oblique_degrees > _OBLIQUE_DEGREES:
        parts.append(
            f"The scan is oblique ({page.grid.oblique_degrees:.0f}°): slices follow its own axes, so the letters name "
            "the nearest directions."
        )
    return " ".join(parts)
