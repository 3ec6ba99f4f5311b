"""The same scan and map get the same figures, to the last digit, from a manifest, from folders and in a benchmark."""

import nibabel
import numpy as np
import pytest

from halebrain.benchmarking.judge import SharingPredictor, model_scores, prepare, score_cell
from halebrain.benchmarking.on_disk import StoredReconstructions
from halebrain.core.failures import Failures
from halebrain.evaluation.folders import FolderOptions, evaluate_files, match_files
from halebrain.evaluation.parts import Scoring
from halebrain.inference.predictor import Predictor
from halebrain.inference.scans import score_scan
from halebrain.io.manifest import Manifest
from halebrain.models.bundle import load_bundle
from halebrain.thresholds.choose import ThresholdSelector
from halebrain.workflows.evaluate import run_evaluation

THRESHOLD, SMALLEST_MM3 = 0.3, 1500.0


@pytest.fixture
def rows(small_cohort):
    return Manifest.read(small_cohort([("p", "FLAIR", "test", "ms")]))


@pytest.fixture
def bundle(small_model):
    return load_bundle(small_model)


def figures(rows, method="model"):
    return {(row.scan_id, row.metric): row.value for row in rows if row.method == method}


def evaluated(bundle, rows, smallest, *, working):
    selector = ThresholdSelector(None, str(THRESHOLD))
    found = run_evaluation(
        Predictor(bundle), rows, selector=selector, working=working, min_lesion_mm3=smallest, failures=Failures(None)
    )
    return figures(found.rows)


def test_benchmark_and_evaluate_agree_on_a_case(bundle, rows):
    scans = list(prepare(rows, Predictor(bundle).preprocessor, description="Reading"))
    score = model_scores(SharingPredictor(StoredReconstructions(), bundle=bundle), {"fused": "model"})
    by_size = {}
    for smallest in (0.0, SMALLEST_MM3):
        result, _ = score_cell(score, scans, scans, name="cell", min_lesion_mm3=smallest)
        own = figures(result.rows)
        assert {name for _, name in own} >= {"auprc", "dice", "false_positive_volume"}
        selector = ThresholdSelector(None, repr(result.thresholds["model"]))
        found = run_evaluation(
            Predictor(bundle), rows, selector=selector, working=True, min_lesion_mm3=smallest, failures=Failures(None)
        )
        theirs = figures(found.rows)
        np.testing.assert_array_equal(list(own.values()), [theirs[key] for key in own])
        by_size[smallest] = own
    volumes = [by_size[size]["sub-p_FLAIR", "false_positive_volume"] for size in by_size]
    assert volumes[0] != volumes[1], "the smallest lesion changes nothing here, and the test shows nothing"


def test_folders_and_manifest_agree_on_a_case(bundle, rows, tmp_path):
    folders = {name: tmp_path / name for name in ("maps", "truth", "brains")}
    for folder in folders.values():
        folder.mkdir()
    predictor = Predictor(bundle)
    for scored in (score_scan(predictor, record) for record in rows):
        lesion = np.zeros(scored.volume.shape, bool) if scored.lesion is None else scored.lesion
        for folder, array in (("maps", scored.result.score), ("truth", lesion), ("brains", scored.result.brain_mask)):
            kind = np.float32 if folder == "maps" else np.uint8
            image = nibabel.Nifti1Image(array.astype(kind), scored.volume.affine)
            nibabel.save(image, folders[folder] / f"{scored.record.scan_id}.nii.gz")
    pairs = match_files(folders["maps"], folders["truth"], folders["brains"])
    found, _ = evaluate_files(
        pairs, FolderOptions(threshold=THRESHOLD), method="model", seed=0, scoring=Scoring(Failures(None))
    )
    own = {metric: value for (_, metric), value in figures(found.rows).items()}
    theirs = evaluated(bundle, rows, 0.0, working=False)
    assert np.isnan(own.pop("false_positive_volume_near_ventricles"))  # files say nothing of where the template lies
    assert len(own) > 15
    np.testing.assert_array_equal(list(own.values()), [theirs["sub-p_FLAIR", metric] for metric in own])
