"""Exams against each contrast alone: every set of contrasts and every fusion, as the tables of docs/notes/exams.md.

Figures are on the grid of the reference scan of each exam. "At equal sensitivity" is the false-positive volume at the
threshold that finds as much of the lesions of that exam as FLAIR alone does at its default threshold (the first
contrast where there is no FLAIR). Each finished exam is kept in OUT, in a table named after the hash of the model
(exams-HASH.tsv), and a second run goes on from there: another manifest, split or seed needs its own OUT.

    halebrain cohort -o cohort --subjects 70 --patients 16 --seed 907 --prefix n --variety wide
    python benchmarks/exams.py --manifest cohort/manifest.tsv --output OUT [--split test] [--model MODEL]

With --data it is made of the real patients in that folder (that of the tests, HALEBRAIN_TEST_DATA) instead: multiple
sclerosis and glioma, both skull-stripped, the glioma as whole head, and a stroke without a reference mask.

    python benchmarks/exams.py --data FOLDER --output OUT

`--most N` takes the first N exams of each disease only.
"""

import argparse
import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from halebrain.core.progress import track
from halebrain.core.types import FloatArray
from halebrain.evaluation.case import Case
from halebrain.evaluation.evaluate import score_case
from halebrain.evaluation.statistics import SHARE, bootstrap_mean
from halebrain.inference.exams import Exam, exams_of_manifest
from halebrain.inference.fusion import DEFAULT, FUSIONS, fuse_contrasts
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.workflows.detector import Detector, load_detector
from halebrain.workflows.evaluate_exams import ScoredExam, contrast_scores, score_exam
from halebrain.workflows.exam_detector import ExamPart, threshold_of
from halebrain.workflows.settings import DetectSettings

ORDER = ("T1w", "T2w", "FLAIR")
FIGURES = ("auprc", "dice", "recall", "false_positive_volume")
COLUMNS = ("exam", "disease", "contrasts", "fusion", *FIGURES, "at_equal_sensitivity")
ALONE = "alone"
Row = dict[str, str]


def real_exams(data: Path) -> Manifest:
    """Return the real patients with several contrasts."""
    ms = data / "ms_mslub" / "patient26_MNI"
    glioma = data / "tumour_tcga_lgg_FG-6692"
    ending = "_N4_noneck_reduced_winsor_regtoFLAIR"
    records = []
    for name, modality in (("T1", "T1w"), ("T2", "T2w"), ("FLAIR", "FLAIR")):
        image = ms / f"{name}{ending}_brain_N4_regtoMNI.nii.gz"
        lesion = ms / f"GOLD_STANDARD{ending}_regtoMNI.nii.gz"
        records.append(_record("mslub26", "ms", image, modality, lesion))
        short = "fla" if name == "FLAIR" else name.lower()
        stripped = glioma / "sri24_1mm_bet"
        image = stripped / f"OtherEXampleFromTCIA_{short}_bet.nii.gz"
        records.append(_record("tcgaFG6692", "tumour", image, modality, stripped / "simple.nii.gz"))
        (raw,) = (glioma / "raw").glob(f"*_{short}.nii.gz")
        records.append(_record("tcgaFG6692raw", "tumour", raw, modality, None))
        records.append(_record("cstar", "stroke", data / "stroke_cstar_nomask" / f"{name}.nii.gz", modality, None))
    return Manifest(tuple(records), source=data)


def _record(subject: str, disease: str, image: Path, modality: str, lesion: Path | None) -> ScanRecord:
    return ScanRecord(subject=subject, image=image, modality=modality, lesion=lesion, pathology=disease, split="test")


def rows_of(detector: Detector, scored: ScoredExam) -> Iterator[Row]:
    """Yield the figures of an exam for each set of its contrasts and each fusion."""
    parts = sorted(scored.found.parts, key=lambda part: _place(part.contrast.name))
    alone = [_case(detector, scored, [part], DEFAULT) for part in parts]
    usual = next((case for part, case in zip(parts, alone, strict=True) if part.contrast.name == "FLAIR"), alone[0])
    found = _recall(usual)
    for count in range(1, len(parts) + 1):
        for some in combinations(parts, count):
            for fusion in sorted(FUSIONS) if count > 1 else (DEFAULT,):
                case = _case(detector, scored, some, fusion)
                values = {row.metric: row.value for row in score_case(case, only=FIGURES)}
                yield {
                    "exam": scored.found.made.exam,
                    "disease": scored.record.pathology or "healthy",
                    "contrasts": ", ".join(str(part.contrast.name) for part in some),
                    "fusion": fusion if count > 1 else ALONE,
                    **{name: f"{values[name]:.6g}" for name in FIGURES},
                    "at_equal_sensitivity": f"{_false_positive_ml(case, found):.6g}",
                }


def _place(contrast: str | None) -> int:
    return ORDER.index(contrast) if contrast in ORDER else len(ORDER)


def _case(detector: Detector, scored: ScoredExam, parts: Sequence[ExamPart], fusion: str) -> Case:
    """Return what a set of contrasts finds in an exam, on the grid of its reference."""
    reference = scored.found.reference
    fused = fuse_contrasts(contrast_scores(detector, parts), fusion)
    score: FloatArray = np.clip(reference.scan.to_native(fused), 0, 1)
    cut = threshold_of(detector, [part.contrast.name for part in parts], fusion, None).cut
    brain, affine = reference.own.brain_mask, reference.volume.affine
    return Case.of(scored.record, reference=scored.lesion, brain_mask=brain, affine=affine, score=score, cut=cut)


def _recall(case: Case) -> float:
    true, _, missed, _ = case.counts
    return true / max(true + missed, 1)


def _false_positive_ml(case: Case, recall: float) -> float:
    """Return the false-positive volume at the highest threshold that finds a part of the lesion; 0 for none of it."""
    lesion = np.sort(case.values[case.labels])[::-1]
    wanted = int(np.ceil(recall * len(lesion) - 1e-9))
    if wanted == 0:
        return 0.0
    return float((case.values[~case.labels] >= lesion[wanted - 1]).sum()) * case.voxel_ml


def tables(rows: Sequence[Row], seed: int) -> str:
    """Return the tables of the notes as Markdown: every set of contrasts, then AUPRC by disease."""
    ill = [row for row in rows if row["disease"] != "healthy" and row["auprc"] not in ("", "nan")]
    healthy = [row for row in rows if row["disease"] == "healthy"]
    methods = list(dict.fromkeys((row["contrasts"], row["fusion"]) for row in rows))
    methods.sort(key=lambda method: (method[0].count(","), [_place(one) for one in method[0].split(", ")], method[1]))
    heads = ["contrasts", "fusion", "AUPRC", "Dice", "sensitivity", "false-positive ml", "at equal sensitivity"]
    lines = [[*heads, "healthy, ml"]]
    for method in methods:
        own = [row for row in ill if (row["contrasts"], row["fusion"]) == method]
        values = [float(row["auprc"]) for row in own]
        if not own:
            continue
        interval = bootstrap_mean(values, [row["exam"] for row in own], seed=seed, bounds=SHARE)
        auprc = f"{interval.mean:.3f}"
        if np.isfinite(interval.low):
            auprc += f" [{interval.low:.3f}, {interval.high:.3f}]"
        shares = [f"{_mean(own, name):.{digits}f}" for name, digits in (("dice", 3), ("recall", 2))]
        volumes = [f"{_mean(own, name):.1f}" for name in ("false_positive_volume", "at_equal_sensitivity")]
        usual = [row for row in healthy if (row["contrasts"], row["fusion"]) == method]
        of_healthy = f"{_mean(usual, 'false_positive_volume'):.2f}" if usual else "–"
        lines.append([*method, auprc, *shares, *volumes, of_healthy])
    return f"{_markdown(lines)}\n{_markdown(_by_disease(ill, methods))}"


def _by_disease(ill: Sequence[Row], methods: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Return the cells of a table of AUPRC: a row for each disease, a column for each contrast and full fusion."""
    most = max((contrasts.count(",") for contrasts, _ in methods), default=0)
    shown = [method for method in methods if method[1] == ALONE or method[0].count(",") == most]
    cells = [["disease (exams)", *(one if fusion == ALONE else fusion for one, fusion in shown)]]
    for disease, count in sorted(Counter(row["disease"] for row in ill).items()):
        line = [f"{disease} ({count // len(methods)})"]
        for method in shown:
            own = [row for row in ill if row["disease"] == disease and (row["contrasts"], row["fusion"]) == method]
            line.append(f"{_mean(own, 'auprc'):.3f}" if own else "–")
        cells.append(line)
    return cells


def _mean(rows: Sequence[Row], name: str) -> float:
    return float(np.mean([float(row[name]) for row in rows]))


def _markdown(cells: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(line)} |" for line in cells]
    return "\n".join([lines[0], "|---" * len(cells[0]) + "|", *lines[1:]]) + "\n"


def read_rows(path: Path) -> list[Row]:
    """Return the rows of exams that are finished."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows, whole or not at all."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, COLUMNS, delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(path)


def chosen(exams: Sequence[Exam], records: dict[str, ScanRecord], most: int | None) -> list[Exam]:
    """Return the first exams of each disease."""
    taken: Counter[str | None] = Counter()
    kept = []
    for exam in exams:
        disease = records[exam.scans[0].name].pathology
        taken[disease] += 1
        if most is None or taken[disease] <= most:
            kept.append(exam)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--manifest", type=Path, help="Table of scans (TSV).")
    source.add_argument("--data", type=Path, help="Folder of the real patients.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--split", default="test", help="train, val, test, or all.")
    parser.add_argument("--model", type=Path, help="Folder, zip or name; default: the bundled one.")
    parser.add_argument("--most", type=int, help="Exams of each disease; default: all.")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    manifest = Manifest.read(arguments.manifest) if arguments.data is None else real_exams(arguments.data)
    if arguments.split != "all":
        manifest = manifest.select(lambda row: row.split == arguments.split)
    records = {row.scan_id: row for row in manifest}
    detector = load_detector(DetectSettings(model=arguments.model, seed=arguments.seed))
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"exams-{detector.predictor.bundle.sha256[:12]}.tsv"
    rows = read_rows(path)
    done = {row["exam"] for row in rows}
    todo = [exam for exam in chosen(exams_of_manifest(manifest), records, arguments.most) if exam.name not in done]
    for exam in track(todo, description="Exams"):
        own = [records[scan.name] for scan in exam.scans]
        rows += rows_of(detector, score_exam(detector, exam, own, fusion=DEFAULT))
        write_rows(path, rows)
    text = tables(rows, arguments.seed)
    (arguments.output / "exams.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
