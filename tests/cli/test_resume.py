"""A run that is resumed knows what is finished by its provenance and the bytes of its files: it decodes no image."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from halebrain.core import parallel
from halebrain.inference.scans import ScanInput
from halebrain.io.checksum import file_sha256
from halebrain.io.manifest import Manifest
from halebrain.workflows.detect import detect_scan
from halebrain.workflows.detector import load_detector
from halebrain.workflows.settings import DetectSettings

ROWS = [("a", "FLAIR", "val", "ms"), ("b", "FLAIR", "val", "healthy")]
RAW = [f"--set={pair}" for pair in ("shape=[32,32,24]", "spacing_mm=6", "registration=none", "bias_correction=none")]


def garble(image, said, *keys):
    """Make an image unreadable, and let the JSON of its result hold the hash of what it is now."""
    before = said.stat()
    content = json.loads(said.read_text(encoding="utf-8"))
    place = content
    for key in keys[:-1]:
        place = place[key]
    assert place[keys[-1]] == file_sha256(image), "the hash is that of the file's bytes"
    image.write_bytes(b"no image at all: " + image.name.encode())
    place[keys[-1]] = file_sha256(image)
    said.write_text(json.dumps(content), encoding="utf-8")
    os.utime(said, ns=(before.st_atime_ns, before.st_mtime_ns))


def listing(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.nii.gz")}


@pytest.fixture
def look(command, small_model, small_cohort, tmp_path):
    """Look at two scans with `detect` or with `bids`; return scans, the folder of results, and the command."""

    def start(kind):
        rows = list(Manifest.read(small_cohort(ROWS)))
        how = ("-m", small_model, "--threshold", "0.05", "--no-progress", "--json")
        output = tmp_path / "out"
        if kind == "detect":
            folder = tmp_path / "scans"
            folder.mkdir()
            scans = [Path(shutil.copy(row.image, folder)) for row in rows]
            call = partial(command, "detect", "-i", folder, "-o", output, *how)
        else:
            study, scans = tmp_path / "study", []
            for row in rows:
                anat = study / f"sub-{row.subject}" / "anat"
                anat.mkdir(parents=True)
                scans.append(Path(shutil.copy(row.image, anat)))
            (study / "dataset_description.json").write_text('{"Name": "study", "BIDSVersion": "1.10.0"}')
            call = partial(command, "bids", study, output, "participant", "--skip-bids-validation", "--each-scan", *how)
        return scans, output, call

    return start


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["detect", "bids"])
def test_finished_scans_are_not_opened_and_what_a_killed_run_left_beside_them_goes(look, kind):
    scans, output, call = look(kind)
    code, said = call()
    assert code == 0, said.err
    for scan in scans:
        (provenance,) = output.rglob(f"{scan.name.split('_')[0]}_*provenance.json")
        garble(scan, provenance, "input_sha256")
        (provenance.parent / ".part-ab_defg1").mkdir()
        os.utime(provenance.parent / ".part-ab_defg1", (0, 0))
    before = listing(output)
    code, again = call()
    assert code == 0, again.err
    assert len(json.loads(again.out)["scans"]) == 2
    assert listing(output) == before
    assert list(output.rglob(".part-*")) == []


@pytest.mark.slow
def test_a_finished_scan_whose_file_changed_is_not_taken_for_done(look):
    scans, _, call = look("detect")
    assert call()[0] == 0
    shutil.copy(scans[0], scans[1])
    code, said = call()
    assert code == 3
    assert "results made with other settings exist" in said.err


@pytest.mark.slow
def test_a_scan_that_was_looked_at_alone_is_not_done_again_with_its_folder(look, command, small_model):
    scans, output, again = look("detect")
    how = ("-m", small_model, "--threshold", "0.05", "--no-progress")
    assert command("detect", "-i", scans[0], "-o", output, *how)[0] == 0
    alone = listing(output)
    code, said = again()
    assert code == 0, said.err
    made = listing(output)
    assert {path: made[path] for path in alone} == alone
    assert {path.parent for path in made} == {output, output / scans[1].name.removesuffix(".nii.gz")}
    assert (output / "index.html").read_text(encoding="utf-8").count("_report.html") == 2


@pytest.mark.slow
def test_a_scan_whose_space_was_corrected_is_not_taken_for_done(command, small_model, small_cohort, tmp_path):
    table = small_cohort(ROWS)
    how = ("-m", small_model, "--threshold", "0.05", "--no-progress", "-o", tmp_path / "out")
    assert command("detect", "-i", table, *how)[0] == 0
    assert command("detect", "-i", table, *how)[0] == 0
    lines = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()]
    place = lines[0].index("space")
    lines[1][place] = {"native": "MNI152NLin2009aSym"}.get(lines[1][place], "native")
    table.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    code, said = command("detect", "-i", table, *how)
    assert code == 3
    assert said.err.count("results made with other settings exist") >= 1
    for path in (tmp_path / "out").rglob("*_provenance.json"):  # as an older version wrote them
        stated = json.loads(path.read_text(encoding="utf-8"))
        assert stated.pop("input_space") in ("native", "MNI152NLin2009aSym")
        path.write_text(json.dumps(stated), encoding="utf-8")
    assert command("detect", "-i", table, *how)[0] == 0


@pytest.mark.slow
def test_a_damaged_provenance_is_told_and_the_scan_made_again(look):
    _, output, call = look("detect")
    assert call()[0] == 0
    (provenance,) = output.rglob("sub-a_*provenance.json")
    whole = json.loads(provenance.read_text())
    provenance.write_text('{"threshold": ')
    code, said = call()
    assert code == 0, said.err
    assert "sub-a_FLAIR: processed again: a provenance file must be JSON" in said.err
    assert json.loads(provenance.read_text()) | {"seconds": 0} == whole | {"seconds": 0}


@pytest.mark.slow
def test_a_scan_that_lost_any_file_is_made_again(small_model, small_cohort, tmp_path, monkeypatch):
    (row,) = Manifest.read(small_cohort(ROWS[:1]))
    told, scan, output = [], ScanInput(row.image, row.scan_id), tmp_path / "out"
    detector = load_detector(DetectSettings(model=small_model, threshold="0.05", device="cpu", notify=told.append))
    done = detect_scan(detector, scan, output)
    files = sorted(output.iterdir())
    assert len(files) == 21
    monkeypatch.setattr("halebrain.workflows.detect.find_anomalies", lambda *_, **__: 1 / 0)
    for path in files:
        raw = path.read_bytes()
        path.unlink()
        with pytest.raises(ZeroDivisionError):
            detect_scan(detector, scan, output)
        path.write_bytes(raw)
        if path != done.provenance:
            assert told[-1] == f"{row.scan_id}: processed again, as {path.name} is missing"
    assert detect_scan(detector, scan, output) == done


@pytest.mark.slow
def test_prepared_scans_are_not_opened(command, small_cohort, tmp_path, monkeypatch):
    alone = parallel.map_items
    monkeypatch.setattr("halebrain.workflows.prepare.map_items", lambda f, items, _, **more: alone(f, items, **more))
    manifest, output = small_cohort(ROWS), tmp_path / "data"
    prepare = partial(command, "prepare", "-i", manifest, "-o", output, *RAW, "--no-progress", "--json")
    code, said = prepare()
    assert code == 0, said.err
    for row in Manifest.read(manifest):
        (sidecar,) = output.rglob(f"sub-{row.subject}_*desc-preproc_FLAIR.json")
        garble(row.image, sidecar, "identity", "image_sha256")
        if row.lesion is not None:
            garble(row.lesion, sidecar, "identity", "lesion_sha256")
    for image in output.rglob("*.nii.gz"):
        image.write_bytes(b"no image at all")
    before = listing(output)
    code, said = prepare()
    assert code == 0, said.err
    assert json.loads(said.out)["kept"] == 2
    assert listing(output) == before
