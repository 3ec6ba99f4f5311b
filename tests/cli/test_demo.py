"""`halebrain demo`: a virtual patient through the bundled model, and what the page says of it."""

import json
import re

import nibabel
import numpy as np
import pytest

from halebrain.inference.outputs import OutputNames
from halebrain.io.manifest import Manifest

SETTINGS = ("--spacing-mm", 4, "--threshold", 0.05, "--device", "cpu", "--no-progress")


@pytest.fixture
def demo(bundled, command, tmp_path):
    """Run the demo with a small untrained model in the place of the bundled one."""

    def run(*arguments):
        return command("demo", "-o", tmp_path / "demo", *SETTINGS, *arguments)

    return run


@pytest.mark.slow
def test_every_contrast_is_told_beside_the_truth_and_asked_again_nothing_is_done_again(demo, tmp_path):
    code, said = demo("--json")
    assert code == 0, said.err
    document = json.loads(said.out)
    assert [scan["modality"] for scan in document["scans"]] == ["FLAIR", "T2w", "T1w"]
    records = {record.scan_id: record for record in Manifest.read(tmp_path / "demo" / "patient" / "manifest.tsv")}
    assert len(records) == 3
    page = (tmp_path / "demo" / "index.html").read_text(encoding="utf-8")
    for scan in document["scans"]:
        names = OutputNames(tmp_path / "demo" / "detection", scan["scan"])
        mask, truth = (
            np.asarray(nibabel.load(path).dataobj) > 0
            for path in (names.file("anomaly", "mask"), records[scan["scan"]].lesion)
        )
        dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
        assert scan["dice"] == pytest.approx(dice, abs=1e-6)
        assert scan["lesion_volume_ml"] == pytest.approx(truth.sum() * 0.064, abs=1e-3)
        assert scan["found_volume_ml"] == pytest.approx(mask.sum() * 0.064, abs=1e-3)
        assert scan["false_positive_volume"] == pytest.approx((mask & ~truth).sum() * 0.064, abs=1e-3)
        assert 0 < scan["intensity_rank_auprc"] < 1
        assert f'href="detection/{names.page.name}"' in page
        assert f'<td class="short">{dice:.2f}</td>' in page
    assert page.count("<iframe") == 1
    assert page.count("data:image/png;base64,") >= 1
    assert not re.search(r"""(src|href)=(["']|&#34;|&quot;)https?:|url\(["']?https?:""", page)
    assert "Research use only" in page

    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").rglob("*.nii.gz")}
    assert len(files) == 3 + 3 + 2 + 3 * 7  # scans, healthy images, masks; maps
    code, said = demo()
    assert code == 0
    assert said.out.strip() == str(tmp_path / "demo" / "index.html")
    assert "halebrain detect -i SCAN -o OUT" in said.err
    code, said = demo("--seed", 1)
    assert code == 73
    assert "--overwrite" in said.err
    assert {path: path.stat().st_mtime_ns for path in files} == files


@pytest.mark.slow
def test_overwriting_replaces_what_the_demo_made_and_leaves_what_it_did_not(demo, tmp_path):
    folder = tmp_path / "demo"
    folder.mkdir()
    own = folder / "own.txt"
    own.write_text("mine")
    assert demo()[0] == 0
    parameters = next((folder / "patient").rglob("parameters.json"))
    before = parameters.read_text()
    assert demo("--seed", 1, "--overwrite")[0] == 0
    assert parameters.read_text() != before
    assert len(list((folder / "detection").glob("*provenance.json"))) == 3
    assert own.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--quick",), "--train"),
        (("--train", "--pathology", "ms"), "--pathology goes without --train"),
        (("--train", "--spacing-mm", 2), "--spacing-mm goes without --train"),
        (("--pathology", "tumor"), "tumour"),
    ],
)
def test_what_has_no_effect_or_no_meaning_is_refused(command, tmp_path, arguments, named):
    code, said = command("demo", "-o", tmp_path / "demo", "--no-progress", *arguments)
    assert code == 2
    assert named in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "demo").exists()
