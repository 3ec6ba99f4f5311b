"""A benchmark of several contrasts: trained on each, judged on each alone and on all of a person together."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from halebrain.benchmarking.config import MatrixConfig
from halebrain.benchmarking.exams import exam_scores, exams_of, healthy_zeros
from halebrain.benchmarking.inputs import read_fold
from halebrain.benchmarking.judge import prepare, score_cell
from halebrain.benchmarking.plan import chosen_cells, plan
from halebrain.benchmarking.run import _judged_as, training_identity
from halebrain.core.config import merged, parse_config
from halebrain.core.errors import ConfigError, MissingInputError
from halebrain.inference.fusion import ContrastScore, fuse_contrasts
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor
from small_matrix import GRID, MATRIX

RAW = MATRIX | {
    "modalities": ["T1w", "FLAIR"],
    "postprocessing": {"residual": "positive", "median_size": 1},
    "reference": "AE exam",
    "contrasts": [
        {"name": "exam − best alone", "first": "AE exam", "second": ["AE T1w", "AE FLAIR"], "columns": "all"}
    ],
}
PEOPLE = [(f"h{n}", split, "healthy") for n, split in enumerate(("train", "val", "test"))]
PEOPLE += [(f"m{n}", split, "ms") for n, split in enumerate(("train", "val", "test", "test"))]
ROWS = [(name, modality, split, disease) for name, split, disease in PEOPLE for modality in ("T1w", "FLAIR")]

# Lightning warns about the machine, not about the run.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning.*")


def config(**changes):
    return parse_config(MatrixConfig, merged(RAW, changes))


def test_a_result_is_another_one_with_another_model_below_or_other_preprocessing():
    settings = config()
    cells = {cell.key: cell for cell in plan(settings)}
    scans = Manifest((ScanRecord("h0", Path("a.nii.gz"), "T1w"),))
    pair = cells["fold0/T1w/seed0/pair-ms"]
    assert training_identity(pair, scans, "one") != training_identity(pair, scans, "other")
    baselines = cells["fold0/T1w/baselines"]
    finer = settings.model_copy(
        update={"preprocessing": settings.preprocessing.model_copy(update={"high_percentile": 98.0})}
    )
    assert _judged_as(settings, baselines, "x") == _judged_as(config(), baselines, "x")
    assert _judged_as(settings, baselines, "x") != _judged_as(finer, baselines, "x")


def test_every_contrast_has_its_cells_and_exams_fuse_those_with_rows():
    cells = {cell.key: cell for cell in plan(config())}
    tails = ("baselines", "seed0/ae", "seed0/pair-ms")
    assert list(cells) == [f"fold0/{name}/{tail}" for name in ("T1w", "FLAIR", "exam") for tail in tails]
    exam = cells["fold0/exam/seed0/pair-ms"]
    assert (exam.kind, exam.parts) == ("exam", ("fold0/T1w/seed0/pair-ms", "fold0/FLAIR/seed0/pair-ms"))
    assert {label.title for label in exam.rows.values()} == {"Unet_res exam (ms)", "SADM_res exam (ms)"}
    alone = cells["fold0/FLAIR/seed0/pair-ms"]
    assert alone.needs == "fold0/FLAIR/seed0/ae"
    assert alone.settings["data"]["modalities"] == ["FLAIR"]
    assert {label.title for label in alone.rows.values()} == {"Unet_res FLAIR (ms)", "SADM_res FLAIR (ms)"}
    chosen = chosen_cells(list(cells.values()), ("fold0/exam/*/pair-ms",))
    assert [cell.key for cell in chosen] == [
        *(f"fold0/{name}/seed0/{tail}" for name in ("T1w", "FLAIR") for tail in ("ae", "pair-ms")),
        "fold0/exam/seed0/pair-ms",
    ]


def test_a_reconstructor_without_a_row_is_no_exam():
    without = config(reconstructors={"ae": {"row": None}}, reference="SADM_res exam", contrasts=[])
    assert [cell.key for cell in plan(without) if cell.kind == "exam"] == [
        *("fold0/exam/baselines", "fold0/exam/seed0/pair-ms"),
    ]


def test_the_trainings_of_a_contrast_are_those_of_a_file_of_it_alone():
    rows = Manifest(tuple(ScanRecord("a", Path("a"), name, split="train") for name in ("T1w", "FLAIR")))
    single = config(modalities=[], modality="FLAIR", reference="AE", contrasts=[])

    def identities(own):
        found = {}
        for cell in own:
            scans = rows.of_contrasts(("FLAIR",))
            found[cell.key] = training_identity(cell, scans, found[cell.needs] if cell.needs else "")
        return found

    several = identities(cell for cell in plan(config()) if cell.modality == "FLAIR")
    alone = identities(plan(single))
    assert list(several.values()) == list(alone.values())
    assert [key.replace("/FLAIR", "") for key in several] == list(alone)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"modalities": ["FLAIR"]}, "two contrasts or more"),
        ({"modalities": ["T1w", "t1"]}, "each once"),
        ({"synthetic": {"name": "blobs"}}, "give modalities or synthetic"),
        ({"fusion": "log_odd"}, "log_odds"),
        ({"reference": "AE"}, "must be a row"),
        ({"contrasts": [{**RAW["contrasts"][0], "first": "AE"}]}, "got AE in .*known: AE FLAIR"),
        (
            {"reconstructors": {"ae": {"once": True}}, "segmenters": {"pair": {"once": True}}},
            "needs 'AE exam' in every",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(changes, word):
    with pytest.raises(ConfigError, match=word):
        plan(config(**changes))


@pytest.mark.parametrize(
    ("left", "word"),
    [
        ({("h2", "T1w"), ("m2", "T1w"), ("m3", "FLAIR")}, "needs a test person with all contrasts"),
        ({("h1", "FLAIR")}, "needs a healthy validation person with all contrasts"),
        ({(name, "T1w") for name, *_ in PEOPLE}, "a benchmark in T1w needs scans of it, got FLAIR"),
    ],
)
def test_a_table_without_exams_is_refused(small_cohort, left, word):
    manifest = small_cohort([row for row in ROWS if (row[0], row[1]) not in left])
    with pytest.raises(MissingInputError, match=word):
        read_fold(manifest, config())


@pytest.fixture
def scans(small_cohort):
    """The validation scans of both contrasts on the grid of the benchmark, by contrast; one person lacks FLAIR."""
    rows = Manifest.read(small_cohort([row for row in ROWS if (row[0], row[1]) != ("m1", "FLAIR")]))
    preprocessor = Preprocessor(PreprocessingConfig.model_validate(GRID))
    return {
        name: list(prepare(rows.split("val").of_contrasts((name,)), preprocessor, description=name))
        for name in ("T1w", "FLAIR")
    }


def test_an_exam_is_fused_on_the_scale_of_the_healthy_scans(scans):
    def score(scan):
        faint = 0.2 if scan.record.contrast == "T1w" else 0.8
        return {"row": (scan.scan.image * faint * scan.scan.brain_mask).astype(np.float32)}

    zeros = [healthy_zeros(score, own, 0.0) for own in scans.values()]
    for own, zero in zip(scans.values(), zeros, strict=True):
        (healthy,) = [scan for scan in own if scan.record.is_healthy]
        values = score(healthy)["row"]
        voxel_ml = 6**3 / 1000
        assert (values >= zero["row"]).sum() * voxel_ml <= 1.0
        below = values[values < zero["row"]].max()
        assert (values >= below).sum() * voxel_ml > 1.0, "it is the lowest such score"
    (exam,) = exams_of(scans)
    assert exam.record.scan_id == "sub-h1_FLAIR+T1w"
    assert [part.record.contrast for part in exam.parts] == ["T1w", "FLAIR"]
    found = exam_scores([score, score], zeros, "weighted_odds")(exam)["row"]
    expected = fuse_contrasts(
        [
            ContrastScore(part.record.contrast, score(part)["row"], part.scan.brain_mask, zero["row"])
            for part, zero in zip(exam.parts, zeros, strict=True)
        ],
        "weighted_odds",
    )
    assert np.array_equal(found, expected)
    assert not np.allclose(found, exam_scores([score, score], zeros, "mean")(exam)["row"])


def test_the_zero_of_a_contrast_lies_within_0_and_1_and_small_components_do_not_count(scans):
    own = scans["FLAIR"]
    brain = next(scan for scan in own if scan.record.is_healthy).scan.brain_mask

    def specks(scan):
        score = np.zeros_like(scan.scan.image)
        score[::3, ::3, ::3] = 0.9 * brain[::3, ::3, ::3]
        return {"none": np.zeros_like(score), "specks": score}

    assert brain[::3, ::3, ::3].sum() * 6**3 > 2000, "more than 1 ml, in components of one voxel each"
    every, large = healthy_zeros(specks, own, 0.0), healthy_zeros(specks, own, 2 * 6**3)
    assert every["specks"] > 0.9 > large["specks"]
    assert every["none"] == large["none"] == large["specks"] == 1e-4


def test_masks_of_a_cell_have_no_component_below_the_smallest_size(scans):
    def score(scan):
        values = np.zeros_like(scan.scan.image)
        values[::3, ::3, ::3] = scan.scan.brain_mask[::3, ::3, ::3]
        return {"row": np.where(scan.lesion, 1, values).astype(np.float32)}

    own = scans["T1w"]
    assert any(scan.lesion.sum() > 1 for scan in own)
    false = {}
    for smallest in (0.0, 2 * 6**3):
        result, _ = score_cell(score, own, own, name="cell", min_lesion_mm3=smallest)
        rows = [row for row in result.rows if row.metric == "false_positive_volume"]
        assert len(rows) == len(own)
        false[smallest] = sum(row.value for row in rows)
    assert false[0.0] > 1
    assert false[2 * 6**3] < false[0.0] / 2


def test_an_exam_has_the_brain_of_all_its_scans_and_the_lesion_that_is_annotated(scans):
    t1, flair = scans["T1w"][0], scans["FLAIR"][0]
    half = np.zeros_like(t1.scan.brain_mask)
    half[:16] = True
    lesion = np.zeros_like(half)
    lesion[20:22, 16:18, 12:14] = True
    t1 = replace(t1, scan=replace(t1.scan, brain_mask=t1.scan.brain_mask & half))
    flair = replace(flair, lesion=lesion, record=replace(flair.record, pathology="ms"))
    (exam,) = exams_of({"T1w": [t1], "FLAIR": [flair]})
    assert np.array_equal(exam.scan.brain_mask, t1.scan.brain_mask | flair.scan.brain_mask)
    assert np.array_equal(exam.lesion, lesion)
    assert exam.record.pathology == "ms"


@pytest.mark.slow
def test_exams_from_end_to_end_and_again(small_cohort, command, tmp_path):
    manifest = small_cohort([row for row in ROWS if (row[0], row[1]) != ("m3", "T1w")])
    path, out = tmp_path / "matrix.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(RAW | {"manifest": str(manifest)}))
    arguments = ("benchmark", "-c", path, "-o", out, "--device", "cpu", "--no-progress")
    code, said = command(*arguments, "--dry-run", "--json")
    assert code == 0, said.err
    costs = {cell["cell"]: cell for cell in json.loads(said.out)["cells"]}
    assert costs["fold0/exam/seed0/ae"]["flop_training"] == 0
    assert costs["fold0/exam/seed0/ae"]["flop_evaluation"] == sum(
        costs[f"fold0/{name}/seed0/ae"]["flop_evaluation"] for name in ("T1w", "FLAIR")
    )
    code, said = command(*arguments)
    assert code == 0, said.err
    assert "fold 0: sub-m3: not judged as exams, for they lack a contrast or its mask" in said.err
    with (out / "results.tsv").open() as handle:
        rows = [row for row in csv.DictReader(handle, delimiter="\t") if row["metric"] == "auprc"]
    scored = {}
    for row in rows:
        if row["pathology"] == "ms":
            scored.setdefault(row["row"], set()).add(row["scan"])
    methods = ("intensity rank", "AE", "Unet_res", "SADM_res")
    learned = {"Unet_res": " (ms)", "SADM_res": " (ms)"}
    assert set(scored) == {f"{m} {c}{learned.get(m, '')}" for m in methods for c in ("T1w", "FLAIR", "exam")}
    assert scored["AE FLAIR"] == {"sub-m2_FLAIR", "sub-m3_FLAIR"}
    assert scored["AE T1w"] == {"sub-m2_T1w"}
    assert scored["AE exam"] == {"sub-m2_FLAIR+T1w"}
    stated = json.loads((out / "matrix.json").read_text())
    exam = stated["cells"]["fold0/exam/seed0/ae"]
    assert exam["fusion"] == "root_odds"
    assert all(0 < exam["healthy_scores"][name]["AE exam"] < 1 for name in ("T1w", "FLAIR"))
    assert stated["contrasts"][0]["n_subjects"] == 1
    page = (out / "index.html").read_text()
    assert "SADM_res exam (ms)" in page
    assert (out / "figures" / "example_ms.png").stat().st_size > 1000

    before = {path: path.stat().st_mtime_ns for path in out.glob("cells/**/result.json")}
    assert len(before) == 9
    path.write_text(yaml.safe_dump(RAW | {"manifest": str(manifest), "fusion": "mean"}))
    assert command(*arguments)[0] == 0
    after = {path: path.stat().st_mtime_ns for path in out.glob("cells/**/result.json")}
    assert {p for p in before if after[p] != before[p]} == set(), "another fusion has folders of its own"
    assert {p.relative_to(out / "cells" / "fold0").parts[0] for p in set(after) - set(before)} == {"exam"}

    # Pictures show the first contrast; where that was another one, the cells of this one have none yet.
    path.write_text(yaml.safe_dump(RAW | {"manifest": str(manifest), "modalities": ["FLAIR", "T1w"]}))
    models = {path: path.stat().st_mtime_ns for path in out.glob("cells/**/model.safetensors")}
    (out / "figures" / "example_ms.png").unlink()
    code, said = command(*arguments)
    assert code == 0, said.err
    assert (out / "figures" / "example_ms.png").stat().st_size > 1000
    assert {path: path.stat().st_mtime_ns for path in out.glob("cells/**/model.safetensors")} == models
