"""The whole method at toy size: the demo, its resumption, and detection on scans as other scanners store them."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from halebrain.io.bids_validator import validation_errors
from halebrain.models.bundle import load_bundle
from small_demo import SmallDemo, as_bids, stored_otherwise

pytestmark = [
    pytest.mark.slow,
    # Lightning warns about the machine, not about the run.
    pytest.mark.filterwarnings("ignore::UserWarning:lightning.*"),
]


Command = Callable[..., tuple[int, Any]]


def test_the_demo_leaves_all_that_it_promises(small_demo: SmallDemo) -> None:
    for name in ("index.html", "mosaic.png", "evaluation/scans.tsv", "evaluation/summary.md", "cohort/montage.png"):
        assert (small_demo.folder / name).stat().st_size > 100, name
    assert len(list((small_demo.folder / "detection").glob("*provenance.json"))) == 1
    summary = json.loads((small_demo.folder / "evaluation" / "summary.json").read_text())
    assert summary["provenance"]["model_sha256"] == load_bundle(small_demo.model).sha256
    methods = {s["method"] for s in summary["summaries"] if s["metric"] == "auprc"}
    assert methods == {"model", "segmenter alone", "reconstruction alone", "intensity rank"}
    rank = next(s for s in summary["summaries"] if s["method"] == "intensity rank" and s["metric"] == "auprc")
    assert 0 < rank["mean"] <= 1
    assert rank["n_scans"] >= 1


def test_the_page_loads_nothing_from_elsewhere(small_demo: SmallDemo) -> None:
    page = (small_demo.folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=(["']|&#34;|&quot;)https?:|url\(["']?https?:""", page)
    assert page.count("<iframe") == 1
    assert page.count("data:image/png;base64,") >= 4
    link = re.search(r'<a href="(detection/[^"]+_report\.html)"', page)
    assert link is not None
    assert (small_demo.folder / link[1]).is_file()


def test_the_evaluated_were_never_learned_from(small_demo: SmallDemo) -> None:
    bundle = load_bundle(small_demo.model)
    learned = {s for stage in bundle.training.values() for s in stage["train_subjects"] + stage["val_subjects"]}
    learned |= set(bundle.calibration["subjects"])
    lines = (small_demo.folder / "evaluation" / "scans.tsv").read_text().splitlines()
    subjects = {line.split("\t")[1] for line in lines[1:]}
    assert learned
    assert subjects
    assert not learned & subjects


def test_the_page_says_what_the_segmenter_learned_from(small_demo: SmallDemo) -> None:
    assert "virtual patients with strokes and multiple sclerosis" in (small_demo.folder / "index.html").read_text()
    stage2 = load_bundle(small_demo.model).training["stage2"]
    assert (stage2["config"]["regime"], stage2["pathologies"]) == ("weak", ["ms", "stroke"])


def test_a_second_run_goes_on_from_what_is_there(small_demo: SmallDemo, tmp_path: Path, command: Command) -> None:
    # Others read the demo at this moment; this one is written into.
    ran = SmallDemo(tmp_path / "demo")
    shutil.copytree(small_demo.folder, ran.folder)
    weights = (ran.model / "model.safetensors").read_bytes()
    hash_before = load_bundle(ran.model).sha256
    logs = [(ran.folder / stage / "log.csv").read_bytes() for stage in ("stage1", "stage2")]
    # With the seconds at each step: what is trained again has others.
    assert all(log.splitlines()[0].endswith(b"seconds") and len(log.splitlines()) > 1 for log in logs)
    arguments = ("--train", "--quick", "-o", ran.folder, "--device", "cpu", "--no-progress", "--json")
    code, said = command("demo", *arguments)
    assert code == 0, said.err
    document = json.loads(said.out)
    assert {key: document[key] for key in ("output", "page", "model")} == {
        "output": str(ran.folder),
        "page": str(ran.folder / "index.html"),
        "model": str(ran.model),
    }
    assert load_bundle(ran.model).sha256 == hash_before
    assert (ran.model / "model.safetensors").read_bytes() == weights
    assert [(ran.folder / stage / "log.csv").read_bytes() for stage in ("stage1", "stage2")] == logs


def test_a_scan_stored_otherwise_gets_maps_on_its_own_grid(
    small_demo: SmallDemo, tmp_path: Path, command: Command
) -> None:
    scan = tmp_path / "sub-x_FLAIR.nii.gz"
    native = stored_otherwise(small_demo.patient(), scan)
    out = tmp_path / "out"
    arguments = ("detect", "-i", scan, "-o", out, "--model", small_demo.model, "--device", "cpu", "--no-progress")
    assert command(*arguments)[0] == 0

    provenance = json.loads(next(out.glob("*provenance.json")).read_text())
    assert provenance["qc"]["registration_failed"] is False
    assert provenance["qc"]["registration_mask_dice"] > 0.85
    maps = {p.name.removeprefix("sub-x_"): nibabel.load(p) for p in out.glob("*.nii.gz")}
    assert len(maps) == 7
    for name, image in maps.items():
        assert image.shape == native.shape, name
        np.testing.assert_allclose(image.affine, native.affine, atol=1e-3)
    mask = maps["rec-FLAIR_desc-anomaly_mask.nii.gz"]
    assert mask.get_data_dtype() == np.uint8
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1}
    brain = np.asarray(maps["rec-FLAIR_desc-brain_mask.nii.gz"].dataobj) > 0
    shown = np.asarray(native.dataobj) > 0
    assert 2 * (brain & shown).sum() / (brain.sum() + shown.sum()) > 0.9
    for name in ("rec-FLAIR_desc-anomaly_probseg.nii.gz", "rec-FLAIR_desc-segmenter_probseg.nii.gz"):
        values = np.asarray(maps[name].dataobj)
        assert values.min() >= 0
        assert values.max() <= 1
        assert values[brain].max() > 0
        assert not values[~brain].any()

    # Asked again with the same settings, what is there is left; with others, it is refused.
    stamp = next(out.glob("*provenance.json")).stat().st_mtime_ns
    assert command(*arguments)[0] == 0
    assert next(out.glob("*provenance.json")).stat().st_mtime_ns == stamp
    assert command(*arguments, "--seed", 7)[0] == 73


def test_one_bad_file_does_not_stop_the_others(small_demo: SmallDemo, tmp_path: Path, command: Command) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    stored_otherwise(small_demo.patient(), folder / "sub-b_FLAIR.nii.gz")
    (folder / "sub-a_FLAIR.nii.gz").write_bytes(b"no scan at all")
    code, said = command(
        "detect", "-i", folder, "-o", out, "--model", small_demo.model, "--device", "cpu", "--no-progress"
    )
    assert code == 3
    assert "sub-a_FLAIR" in said.err
    assert list((out / "sub-b_FLAIR").glob("*provenance.json"))
    # 7 maps and a table with their JSON, page and its scan, pictures, provenance
    assert len(list((out / "sub-b_FLAIR").iterdir())) == 21
    assert not (out / "sub-a_FLAIR").exists()


def test_the_cohort_of_the_demo_is_valid_bids(small_demo: SmallDemo, validator: Path) -> None:
    assert validation_errors(validator, small_demo.folder / "cohort") == []


def test_the_bids_app_with_the_model_of_the_demo_writes_valid_bids(
    small_demo: SmallDemo, validator: Path, tmp_path: Path, command: Command
) -> None:
    scan = tmp_path / "scan.nii.gz"
    stored_otherwise(small_demo.patient(), scan)
    study = as_bids(scan, tmp_path)
    for out in (study / "derivatives" / "halebrain", tmp_path / "elsewhere"):
        settings = ("--model", small_demo.model, "--device", "cpu", "--no-progress")
        assert command("bids", study, out, "participant", *settings)[0] == 0
        assert command("bids", study, out, "group")[0] == 0
        assert (out / "index.html").is_file()
        assert validation_errors(validator, out) == []
