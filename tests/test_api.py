"""The Python face calls what the command calls, and gives what it promises."""

import ast
import inspect
import json
import subprocess
import sys
import textwrap
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

import halebrain
from halebrain import api
from halebrain.core.errors import CannotWriteError, DataError, MissingInputError, UnavailableError, UsageError
from halebrain.core.messages import log_message
from halebrain.inference.scans import given_scan
from halebrain.io.manifest import Manifest
from halebrain.models.bundle import load_bundle
from halebrain.workflows import detect as workflow
from halebrain.workflows import settings
from halebrain.workflows.detector import load_detector

STORED = Path(__file__).with_name("api_signatures.json")
CHANGED = (
    "the signature of {name} is promised to users (docs/get-started/python.md). A new optional argument at "
    "the end, or a new field, is allowed. Anything else breaks their scripts: keep the former name or argument "
    "working for one release, with a warning and a line in CHANGELOG.md. Then run python tests/test_api.py, which "
    "writes {file}"
)
MAPS = ("reconstruction", "residual", "uncertainty", "mask", "brain_mask")
SCORES = ("score", "probability")
HOW = {"threshold": 0.05, "device": "cpu", "seed": 3, "draws": 2}


@pytest.fixture
def scan(small_cohort):
    return next(iter(Manifest.read(small_cohort([("p", "FLAIR", "test", "ms")])))).image


def values(image):
    return np.asarray(image.dataobj)


def equal(one, other):
    for name in (*MAPS, *SCORES):
        np.testing.assert_array_equal(values(getattr(one, name)), values(getattr(other, name)), err_msg=name)
        np.testing.assert_array_equal(getattr(one, name).affine, getattr(other, name).affine)
    assert (one.lesions, one.qc) == (other.lesions, other.qc)


def test_the_command_and_the_function_call_the_same_with_the_same(command, bundled, scan, tmp_path, monkeypatch):
    """Both read, preprocess and process a scan in `find_anomalies`, so the results need not be compared."""
    calls = []

    def note(detector, scan, asked, *, steps=None):
        calls.append((detector, scan, asked))
        raise UnavailableError("no network runs here")

    assert api.find_anomalies is workflow.find_anomalies
    for module in (api, workflow):
        monkeypatch.setattr(module, "find_anomalies", note)
    options = ("--threshold", "0.05", "--device", "cpu", "--seed", 3, "--draws", 2, "--no-progress")
    code, said = command("detect", "-i", scan, "-o", tmp_path / "out", *options)
    assert (code, said.err) == (UnavailableError.exit_code, "halebrain: no network runs here\n")
    with pytest.raises(UnavailableError, match="no network runs here"):
        halebrain.detect(scan, **HOW)
    (typed, *theirs), (called, *ours) = calls
    assert replace(typed.settings, notify=log_message) == called.settings
    assert (typed.selector, typed.min_lesion_mm3) == (called.selector, called.min_lesion_mm3)
    assert typed.predictor.bundle.sha256 == called.predictor.bundle.sha256
    assert theirs == ours


@pytest.mark.slow
def test_a_prediction_holds_what_it_promises(bundled, scan):
    image, found = nibabel.load(scan), halebrain.detect(scan, min_lesion_mm3=0, **HOW)
    brain = values(found.brain_mask) > 0
    for name in (*MAPS, *SCORES):
        mapped = getattr(found, name)
        np.testing.assert_array_equal(mapped.affine, image.affine, err_msg=name)
        assert mapped.shape == image.shape
        assert mapped.get_data_dtype() == (np.uint8 if name.endswith("mask") else np.float32)
    for name in SCORES:
        assert values(getattr(found, name)).min() >= 0
        assert values(getattr(found, name)).max() <= 1
    score = values(found.score)
    assert not score[~brain].any()
    np.testing.assert_array_equal(values(found.mask) > 0, (score >= HOW["threshold"]) & brain)
    volumes = [lesion.volume_ml for lesion in found.lesions]
    assert volumes, "a threshold that marks nothing would show nothing"
    assert volumes == sorted(volumes, reverse=True)
    mine = json.loads(json.dumps(found.provenance))
    assert (mine["seed"], mine["draws"], mine["n_lesions"]) == (3, 2, len(volumes))
    assert mine["qc"]["flags"] == found.qc["flags"]
    assert mine["threshold"]["modality"] == "FLAIR"
    assert mine["threshold"]["modality_known_from"] == "file name"
    assert mine["notice"].startswith("Research use only")


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", [False, True])
def test_a_saved_prediction_is_what_the_command_writes(bundled, command, scan, tmp_path, in_memory):
    options = ("--threshold", "0.05", "--device", "cpu", "--seed", 3, "--draws", 2, "--no-progress")
    image = nibabel.load(scan) if in_memory else scan
    name = scan.name.removesuffix(".nii.gz")
    found = halebrain.detect(image, modality="FLAIR", **HOW)
    saved = found.save(tmp_path / "saved", name=name if in_memory else None)
    assert command("detect", "-i", scan, "-o", tmp_path / "out", "--modality", "FLAIR", *options)[0] == 0
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    mine = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    assert mine.keys() == written.keys()
    told, theirs = (json.loads(files.pop(saved.provenance.name)) for files in (mine, written))
    unlike = {key for key in told.keys() | theirs.keys() if told.get(key) != theirs.get(key)}
    of_files = {"input", "content_sha256", "input_sha256", "input_space"}
    assert unlike <= (of_files | {"seconds"} if in_memory else {"seconds"})
    stated = json.loads(json.dumps(found.provenance))
    assert stated.keys() == told.keys()
    assert {key for key in told if stated[key] != told[key]} <= {"seconds"} | ({"scan"} if in_memory else set())
    same = {key for key in mine if mine[key] == written[key]}
    assert {key for key in mine.keys() - same if not in_memory} <= {saved.report.name}  # it tells the seconds
    assert {key for key in mine if key.endswith((".nii.gz", ".tsv", ".png", ".jpg"))} <= same
    assert saved.n_lesions == len(found.lesions)
    # The command takes what it would have written for finished, and makes pages of it again.
    if not in_memory:
        code, said = command("detect", "-i", scan, "-o", tmp_path / "saved", "--modality", "FLAIR", *options)
        assert code == 0, said.err
        assert saved.provenance.read_text() == json.dumps(told, indent=2) + "\n"
    code, said = command("report", tmp_path / "saved", "--threshold", "0.1", "--no-progress")
    assert code == 0, said.err


@pytest.mark.slow
def test_a_saved_prediction_takes_no_place_among_results_of_the_other_kind(bundled, scan, tmp_path):
    alone, exam = halebrain.detect(scan, **HOW), halebrain.detect_exam([scan], **HOW)
    exam.save(tmp_path / "exam", name="sub-p")
    alone.save(tmp_path / "alone")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    with pytest.raises(CannotWriteError, match="a folder with results of exams holds no others"):
        alone.save(tmp_path / "exam")
    with pytest.raises(CannotWriteError, match="a folder with results of scans alone holds no others"):
        exam.save(tmp_path / "alone", name="sub-p")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()} == before


@pytest.mark.slow
def test_a_missing_scan_of_an_exam_is_not_used_whatever_the_others_are_given_as(bundled, scan, tmp_path):
    for other in (scan, nibabel.load(scan)):
        found = halebrain.detect_exam({"FLAIR": other, "T1w": tmp_path / "missing.nii.gz"}, **HOW)
        assert [one.contrast for one in found.scans] == ["FLAIR"]
        (reason,) = found.not_used.values()
        assert "missing.nii.gz" in reason
    with pytest.raises(MissingInputError):
        halebrain.detect_exam([tmp_path / "missing.nii.gz"], **HOW)


@pytest.mark.slow
def test_an_image_in_memory_is_as_good_as_its_file(bundled, scan):
    image = nibabel.load(scan)
    from_file = halebrain.detect(str(scan), **HOW)
    equal(from_file, halebrain.detect(image, **HOW))
    copy = nibabel.Nifti1Image(np.asarray(image.dataobj).astype(np.float64), image.affine)
    equal(from_file, halebrain.detect(copy, **HOW))


@pytest.mark.slow
def test_a_model_is_given_in_any_way(bundled, scan, small_model):
    loaded = halebrain.load_model()
    assert loaded.sha256 == halebrain.load_model("general").sha256 == halebrain.load_model(small_model).sha256
    plain = halebrain.detect(scan, **HOW)
    for model in (loaded, "general", str(small_model), small_model):
        equal(plain, halebrain.detect(scan, model=model, **HOW))
    assert plain.provenance["model_sha256"] == load_bundle(bundled).sha256


@pytest.mark.slow
def test_a_mask_is_given_in_any_way_and_counts(bundled, scan, tmp_path):
    image = nibabel.load(scan)
    inside = (np.asarray(image.dataobj) > 0).astype(np.uint8)
    inside[: inside.shape[0] // 2] = 0
    mask = nibabel.Nifti1Image(inside, image.affine)
    nibabel.save(mask, tmp_path / "mask.nii.gz")
    first = halebrain.detect(scan, brain_mask=tmp_path / "mask.nii.gz", **HOW)
    for given, masked in ((scan, mask), (image, mask), (image, tmp_path / "mask.nii.gz")):
        equal(first, halebrain.detect(given, brain_mask=masked, **HOW))
    assert not values(first.brain_mask)[: inside.shape[0] // 2].any()
    assert values(first.brain_mask).any()


def test_small_lesions_are_dropped_on_request(bundled, scan):
    assert halebrain.detect(scan, min_lesion_mm3=1e9, **HOW).lesions == ()


def test_refusals_are_those_of_the_command(bundled, scan):
    image = nibabel.load(scan)
    with pytest.raises(UsageError, match="path or a nibabel image"):
        halebrain.detect(np.asarray(image.dataobj), **HOW)
    with pytest.raises(DataError, match="three dimensions"):
        halebrain.detect(nibabel.Nifti1Image(np.zeros((9, 9, 9, 3), np.float32), np.eye(4)), **HOW)
    with pytest.raises(DataError, match="needs an affine"):
        halebrain.detect(nibabel.Nifti1Image(np.asarray(image.dataobj), None), **HOW)
    shifted = nibabel.Nifti1Image(np.ones(image.shape, np.uint8), image.affine + np.eye(4))
    with pytest.raises(DataError, match="on the grid of its scan"):
        halebrain.detect(image, brain_mask=shifted, **HOW)
    with pytest.raises(UsageError, match="stored name"):
        halebrain.detect(image, threshold="fpr:0.5")
    bundled.unlink()
    with pytest.raises(UnavailableError, match="halebrain models import"):
        halebrain.detect(image, **HOW)


def signatures():
    """Return each promised name as it is written: arguments and result of a function, fields and methods of a class."""
    found = {}
    for name in api.__all__:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(getattr(halebrain, name)))).body
        if isinstance(node, ast.FunctionDef):
            found[name] = _arguments(node)
            continue
        found[name] = [
            text for one in node.body if isinstance(one, ast.AnnAssign) and (text := ast.unparse(one))[0] != "_"
        ]
        found |= {f"{name}.{one.name}": _arguments(one) for one in node.body if _is_public_method(one)}
    return found


def _arguments(node):
    arguments = ast.unparse(node.args)
    return [*arguments.split(", "), f"-> {ast.unparse(node.returns)}"]


def _is_public_method(node):
    return isinstance(node, ast.FunctionDef) and not node.name.startswith("_")


@pytest.mark.parametrize("name", json.loads(STORED.read_text(encoding="utf-8")))
def test_the_signature_of_a_promised_name_stays(name):
    stored = json.loads(STORED.read_text(encoding="utf-8"))[name]
    assert signatures().get(name) == stored, CHANGED.format(name=name, file=STORED.name)


def test_every_public_name_is_promised_and_described():
    assert signatures().keys() == json.loads(STORED.read_text(encoding="utf-8")).keys(), "python tests/test_api.py"
    assert sorted(api.__all__) == sorted(set(halebrain.__all__) - {"__version__"})
    page = (Path(__file__).parents[1] / "docs" / "reference" / "python-api.md").read_text(encoding="utf-8")
    for name in api.__all__:
        value = getattr(halebrain, name)
        assert f"::: halebrain.api.{name}\n" in page
        if inspect.isfunction(value):
            told = value.__doc__.partition("Args:")[2]
            assert [key for key in inspect.signature(value).parameters if f"\n        {key}: " not in told] == []
            assert "Raises:" in told


def test_no_promised_name_is_that_of_a_module():
    """The module would take the place of the function when it is imported."""
    modules = {path.stem for path in Path(halebrain.__file__).parent.iterdir()}
    assert set(halebrain.__all__) & modules == set()


SETTINGS = {
    "detect": settings.DetectSettings,
    "detect_many": settings.DetectSettings,
    "prepare": settings.PrepareSettings,
    "make_cohort": settings.CohortSettings,
    "make_folds": settings.FoldSettings,
    "train_reconstructor": settings.TrainSettings,
    "train_segmenter": settings.TrainSettings,
    "calibrate": settings.CalibrateSettings,
    "evaluate": settings.EvaluateSettings,
    "benchmark": settings.BenchmarkSettings,
}
OTHERWISE = {("detect", "modality"), ("detect_many", "modality"), ("benchmark", "config")}
OTHERWISE |= {("make_folds", "manifests"), ("make_folds", "weak")}
"""`None` instead of "auto"; required, as there is no default configuration; numbers by disease instead of text."""
LEFT_OUT = {"notify", "part_id", "num_parts", "kind", "batch_size", "overwrite", "dicom_seg", "also_fill", "fill"}
LEFT_OUT |= {"compiled"}
"""Not asked for in Python, or only for many scans, or where files are written (`fill`: only in memory); `kind` is
called `source`."""


@pytest.mark.parametrize("name", SETTINGS)
def test_the_defaults_of_a_function_are_those_of_its_command(name):
    own, known = inspect.signature(getattr(halebrain, name)).parameters, SETTINGS[name]
    defaults = {field.name: field.default for field in fields(known)}
    assert set(defaults) - set(own) <= LEFT_OUT
    for key in set(own) & set(defaults):
        if (name, key) not in OTHERWISE:
            assert own[key].default == defaults[key], key


@pytest.mark.parametrize(
    ("called", "workflow", "given"),
    [
        (lambda: halebrain.detect_many("in", "out", threshold=0.5, modality="FLAIR"), "detect_scans", "in"),
        (lambda: halebrain.prepare("in", "out", source="ixi", overrides=["a=1"]), "prepare_dataset", "in"),
        (lambda: halebrain.train_reconstructor("out", config="tiny"), "run_reconstructor", "out"),
        (lambda: halebrain.train_segmenter("out", "one", variant="sadm"), "run_segmenter", "out"),
        (lambda: halebrain.calibrate("model", "table", modalities=["T1w"]), "calibrate_on_manifest", "model"),
        (lambda: halebrain.calibrate("model", "table", modalities="T1w"), "calibrate_on_manifest", "model"),
        (lambda: halebrain.benchmark("out", config="tiny"), "run_benchmark", "out"),
    ],
)
def test_a_function_hands_what_it_is_given_to_its_workflow(monkeypatch, called, workflow, given):
    calls = []
    monkeypatch.setattr(api, workflow, lambda *args, **more: calls.append((args, more)))
    called()
    ((first, *others), _more) = calls[0]
    assert first == Path(given)
    (asked,) = (one for one in others if is_dataclass(one))
    expected = {
        "detect_scans": {"threshold": "0.5", "modality": "FLAIR", "model": None},
        "prepare_dataset": {"kind": "ixi", "overrides": ("a=1",)},
        "run_reconstructor": {"config": Path("tiny")},
        "run_segmenter": {"config": None},
        "calibrate_on_manifest": {"modalities": ("T1w",)},
        "run_benchmark": {"config": Path("tiny")},
    }[workflow]
    assert {key: getattr(asked, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("called", "said"),
    [
        (lambda: halebrain.detect("scan.nii", precision="fp16"), "precision takes fp32 or bf16, got 'fp16'"),
        (lambda: halebrain.detect("scan.nii", draws=0), "draws takes a number of at least 1, got 0"),
        (lambda: halebrain.detect("scan.nii", min_lesion_mm3=float("nan")), "at least 0, got nan"),
        (lambda: halebrain.detect_exam(["a.nii"], fill=True, fill_margin_mm=-3), "at least 0 and at most 20, got -3"),
        (lambda: halebrain.detect_many("in", "out", executor="slurm", workers=2), "processes or dask or submitit"),
        (lambda: halebrain.evaluate("out", manifest="m.tsv", grid="Working"), "did you mean 'working'"),
        (lambda: halebrain.evaluate("out", manifest="m.tsv", protocol="Behrendt2024"), "protocol takes behrendt2024"),
        (lambda: halebrain.make_cohort("out", variety="Wide"), "variety takes usual or wide, got 'Wide'"),
        (lambda: halebrain.make_folds("out", "m.tsv", val="1"), "val takes a number of at least 1, got '1'"),
    ],
)
def test_a_function_refuses_what_its_command_would_not_take(called, said):
    with pytest.raises(UsageError, match=said):
        called()


@pytest.mark.parametrize("scans", [["sub-1_T1w.nii.gz"], {"FLAIR": "sub-1_T1w.nii.gz"}])
def test_brain_masks_of_no_scan_are_refused(scans):
    with pytest.raises(UsageError, match="brain_masks take the words of scans, got T1w"):
        halebrain.detect_exam(scans, brain_masks={"T1w": "mask.nii.gz"})
    with pytest.raises(UsageError, match="brain_masks take the words of scans, got 1"):
        halebrain.detect_exam(scans, brain_masks={1: "mask.nii.gz"})


def test_a_mask_in_memory_is_stated_by_what_it_holds(small_model, scan):
    detector = load_detector(settings.DetectSettings(model=small_model, device="cpu", threshold="0.5"))
    masks = [nibabel.Nifti1Image(np.full((4, 4, 4), value, np.uint8), np.eye(4)) for value in (0, 1, 1)]
    stated = [workflow.describe_scan(detector, given_scan(scan, brain_mask=mask)).brain_mask_sha256 for mask in masks]
    assert None not in stated
    assert stated[0] != stated[1] == stated[2]


def test_folds_are_those_of_the_command(command, small_cohort, tmp_path):
    rows = [(f"h{n}", "FLAIR", None, "healthy") for n in range(6)] + [(f"m{n}", "FLAIR", None, "ms") for n in range(4)]
    manifest = small_cohort(rows)
    found = halebrain.make_folds(tmp_path / "own", [str(manifest)], folds=2, val=1, test=2, weak={"ms": (1, 2)}, seed=3)
    assert found.subjects[1]["val"] == {"healthy": 1, "ms": 2}
    words = ("--folds", 2, "--val", 1, "--test", 2, "--weak", "ms=1:2", "--seed", 3)
    assert command("folds", "--manifest", manifest, "-o", tmp_path / "typed", *words)[0] == 0
    assert len(found.tables) == 2
    for path in found.tables:
        assert path.read_bytes() == (tmp_path / "typed" / path.name).read_bytes()
    again = halebrain.make_folds(tmp_path / "own", manifest, folds=1, val=1, test=2, overwrite=True)
    assert again.tables == [tmp_path / "own" / "fold0.tsv"]
    with pytest.raises(CannotWriteError, match="the output must not exist yet"):
        halebrain.make_folds(tmp_path / "own", manifest, folds=1, val=1, test=2)


@pytest.mark.slow
def test_a_reconstruction_is_that_of_the_detection(bundled, scan):
    found = halebrain.reconstruct(scan, device="cpu", seed=3, draws=2)
    whole = halebrain.detect(scan, **HOW)
    for mine, theirs in ((found.image, whole.reconstruction), (found.residual, whole.residual)):
        np.testing.assert_array_equal(values(mine), values(theirs))
        np.testing.assert_array_equal(mine.affine, theirs.affine)


@pytest.mark.slow
def test_the_names_are_there_before_anything_is_loaded():
    code = (
        "import sys, halebrain; assert {'detect', 'load_model', 'Prediction'} <= set(dir(halebrain));"
        "assert 'torch' not in sys.modules; halebrain.Prediction; assert 'torch' in sys.modules;"
        "from halebrain import detect; print(hasattr(halebrain, 'nothing'), detect.__module__)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "halebrain.api"]


if __name__ == "__main__":
    STORED.write_text(json.dumps(signatures(), indent=2) + "\n", encoding="utf-8")
