"""`halebrain detect` leaves pages; `halebrain report` makes them again, at another threshold too, without a network."""

import csv
import json
import re
import shutil

import nibabel
import numpy as np
import pytest

from halebrain.inference.outputs import OutputNames
from halebrain.io.manifest import Manifest
from halebrain.report.embedding import read_page


@pytest.fixture
def detected(small_model, small_cohort, command, tmp_path):
    """One processed scan; return its folder, its names and the scan."""
    manifest = small_cohort([("a", "FLAIR", "test", "ms")])
    scan = manifest.parent / "sub-a_FLAIR.nii.gz"
    out = tmp_path / "out"
    detect = ("detect", "-i", scan, "-o", out, "-m", small_model, "--threshold", 0.3, "--no-progress")
    code, said = command(*detect)
    assert code == 0, said.err
    return out, OutputNames(out, "sub-a_FLAIR"), scan


def table(names):
    with names.file("anomaly", "lesions", ".tsv").open() as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_a_file_that_is_gone_is_made_again(detected, command, small_model):
    out, names, scan = detected
    detect = ("detect", "-i", scan, "-o", out, "-m", small_model, "--threshold", 0.3, "--no-progress")
    before = names.file("anomaly", "mask").read_bytes()
    names.page.unlink()
    code, said = command(*detect)
    assert code == 0, said.err
    assert names.page.is_file()
    assert f"processed again, as {names.page.name} is missing" in said.err
    assert names.file("anomaly", "mask").read_bytes() == before
    stamp = names.page.stat().st_mtime_ns
    assert command(*detect)[0] == 0
    assert names.page.stat().st_mtime_ns == stamp


def test_detect_leaves_a_page_that_shows_what_it_wrote(detected):
    _, names, scan = detected
    data, volumes = read_page(names.page)
    rows = table(names)
    assert len(data["findings"]) == len(rows) > 0
    assert names.thumbnail.read_bytes().startswith(b"\xff\xd8")
    level = data["threshold"]["level"]
    mask = np.asarray(nibabel.load(names.file("anomaly", "mask")).dataobj)
    assert int((volumes["score"].codes >= level).sum()) == int(mask.sum())
    # Every finding of the table is where the page jumps to.
    for row, finding in zip(rows, data["findings"], strict=True):
        voxel = np.array(data["to_voxel"]) @ [*finding["place_mm"], 1]
        np.testing.assert_allclose(voxel[:3], [int(row[axis]) for axis in "ijk"], atol=0.01)
    assert np.asarray(nibabel.load(scan).dataobj).max() >= volumes["scan"].values.max()
    assert all(row["region"] for row in rows)


def test_a_page_is_made_again_from_the_files(detected, command):
    out, names, _ = detected
    before = contents(out)
    code, said = command("report", out, "--no-progress")
    assert code == 0, said.err
    assert said.out.strip() == str(names.page)
    after = contents(out)
    assert set(after) == set(before)
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {names.page.name, names.thumbnail.name}
    old, new = (re.sub(rb'id="volume-.*?</script>', b"", text[names.page.name]) for text in (before, after))
    assert len(old) == pytest.approx(len(new), rel=0.01)


def test_the_threshold_of_a_detection_gives_its_mask_and_table_again(detected, command):
    out, names, _ = detected
    before = {path: path.read_bytes() for path in (names.file("anomaly", "mask"), *out.glob("*_lesions.tsv"))}
    assert len(before) == 2
    for threshold in (0.25, 0.3):
        assert command("report", out, "--threshold", threshold, "--no-progress")[0] == 0
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_another_threshold_gives_another_mask_and_table(detected, command):
    out, names, _ = detected
    maps = {name: content for name, content in contents(out).items() if "probseg" in name or "residual" in name}
    volume = float(json.loads(names.provenance.read_text())["lesion_volume_ml"])
    code, said = command("report", out, "--threshold", 0.2, "--min-lesion-mm3", 300, "--no-progress")
    assert code == 0, said.err
    score = np.asarray(nibabel.load(names.file("anomaly", "probseg")).dataobj, dtype=np.float32)
    mask = np.asarray(nibabel.load(names.file("anomaly", "mask")).dataobj) > 0
    assert score[mask].min() >= 0.2
    provenance = json.loads(names.provenance.read_text())
    assert {key: provenance["threshold"][key] for key in ("value", "name", "min_lesion_mm3", "method")} == {
        "value": 0.2,
        "name": "fixed",
        "min_lesion_mm3": 300.0,
        "method": None,
    }
    assert provenance["lesion_volume_ml"] > volume
    assert provenance["n_lesions"] == len(table(names))
    assert mask.sum() * 0.125 == pytest.approx(provenance["lesion_volume_ml"], abs=0.01)
    assert min(float(row["volume_ml"]) for row in table(names)) >= 0.3
    data, _ = read_page(names.page)
    assert data["threshold"]["value"] == 0.2
    assert {name: content for name, content in contents(out).items() if name in maps} == maps
    assert not list(out.glob(".part-*"))


@pytest.mark.slow
def test_a_threshold_that_nothing_reaches_is_an_empty_table(detected, command):
    out, names, _ = detected
    assert command("report", out, "--threshold", 5, "--no-progress")[0] == 0
    assert table(names) == []
    assert "No finding at this threshold." in names.page.read_text()


def test_a_lost_page_is_made_from_the_scan_beside_it(detected, command):
    out, names, _ = detected
    _, volumes = read_page(names.page)
    names.page.unlink()
    code, said = command("report", out, "--no-progress")
    assert (code, said.err.count("warning")) == (0, 0)
    np.testing.assert_array_equal(read_page(names.page)[1]["scan"].codes, volumes["scan"].codes)
    names.display.write_bytes(b"PK damaged")
    code, said = command("report", out, "--no-progress")
    assert code == 65
    assert names.display.name in said.err


def test_results_of_an_earlier_version_hold_the_scan_in_their_page(detected, command):
    out, names, _ = detected
    stored = names.display.read_bytes()
    names.display.unlink()
    description = {"Name": "x", "BIDSVersion": "1.10.0", "GeneratedBy": [{"Name": "halebrain"}]}
    (out / "dataset_description.json").write_text(json.dumps(description))
    code, said = command("report", out, "--no-progress")
    assert code == 0
    assert "the next release does not read pages" in said.err
    assert names.display.read_bytes() == stored
    assert "_display.npz" in (out / ".bidsignore").read_text()
    assert "warning" not in command("report", out, "--threshold", 0.25, "--no-progress")[1].err
    assert names.display.read_bytes() == stored


def test_a_lost_scan_must_be_given(detected, command, tmp_path):
    out, names, scan = detected
    _, volumes = read_page(names.page)
    stored = names.display.read_bytes()
    names.page.unlink()
    names.display.unlink()
    code, said = command("report", out, "--no-progress")
    assert code == 66
    assert "-i SCAN" in said.err
    other = shutil.copy(scan, tmp_path / "other.nii.gz")
    image = nibabel.load(other)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj) + 1, image.affine), tmp_path / "changed.nii.gz")
    assert command("report", out, "-i", tmp_path / "changed.nii.gz", "--no-progress")[0] == 65
    assert command("report", out, "-i", scan, "--no-progress")[0] == 0
    np.testing.assert_array_equal(read_page(names.page)[1]["scan"].codes, volumes["scan"].codes)
    assert names.display.read_bytes() == stored


def test_files_under_another_name_are_not_taken_for_the_scan_that_they_name(detected, command):
    out, names, _ = detected
    for path in list(out.glob("sub-a_*")):
        shutil.copy(path, out / path.name.replace("sub-a_", "sub-b_"))
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("sub-b_*")}
    code, said = command("report", out, "--threshold", 0.5, "--no-progress", "--json")
    assert code == 3, said.err
    found = json.loads(said.out)
    assert found["pages"] == [str(names.page)]
    assert [one["scan"] for one in found["failed"]] == ["sub-b_rec-FLAIR"]
    assert "a provenance file must name its own scan, got sub-a_FLAIR" in found["failed"][0]["error"]
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


@pytest.mark.parametrize("key", ["scan", "template_to_native"])
def test_results_that_say_too_little_are_refused(detected, command, key):
    out, names, _ = detected
    provenance = json.loads(names.provenance.read_text())
    del provenance[key]
    names.provenance.write_text(json.dumps(provenance))
    code, said = command("report", out, "--no-progress")
    assert code == 65
    assert key in said.err


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("template_to_native", "x"),
        ("template_to_native", [[0] * 4] * 4),
        ("template_to_native", [[float("nan")] * 4] * 4),
        ("threshold", 3),
        ("steps", ["registration"]),
    ],
)
def test_results_that_say_something_else_are_refused(detected, command, key, value):
    out, names, _ = detected
    provenance = json.loads(names.provenance.read_text())
    names.provenance.write_text(json.dumps(provenance | {key: value}))
    code, said = command("report", out, "--threshold", 0.2, "--no-progress")
    assert code == 65
    assert "as halebrain detect wrote it" in said.err
    assert names.provenance.name in said.err


def test_nothing_to_report_on(tmp_path, command):
    assert command("report", tmp_path)[0] == 66
    assert command("report", tmp_path / "none")[0] == 66


@pytest.mark.parametrize("value", ["0", "-1", "inf", "nan"])
def test_a_threshold_must_be_above_0(detected, command, value):
    code, said = command("report", detected[0], "--threshold", value)
    assert code == 2
    assert "above 0" in said.err


@pytest.mark.slow
def test_a_folder_has_a_page_of_all_scans_with_what_failed(small_model, small_cohort, command, tmp_path):
    folder = small_cohort([("a", "FLAIR", "test", "ms"), ("b", "FLAIR", "test", "healthy")]).parent
    for path in [folder / "manifest.tsv", *folder.glob("*_mask.nii.gz"), *folder.glob("*.json")]:
        path.unlink()
    broken = folder / "sub-c_FLAIR.nii.gz"
    broken.write_bytes(b"no image")
    out = tmp_path / "out"
    detect = ("detect", "-i", folder, "-o", out, "-m", small_model, "--threshold", 0.3, "--no-progress")
    assert command(*detect)[0] == 3
    index = (out / "index.html").read_text()
    assert "2 scans" in index
    assert "1 failed" in index
    assert "sub-c_FLAIR" in index
    links = re.findall(r'<a href="([^"]+)"', index)
    assert len(links) == 2
    assert all((out / link).is_file() for link in links)
    # A later run of one of the others keeps what was done and what failed; a mended scan is no failure any more.
    (folder / "sub-a_FLAIR.nii.gz").unlink()
    assert command(*detect)[0] == 3
    assert "2 scans" in (out / "index.html").read_text()
    shutil.copy(folder / "sub-b_FLAIR.nii.gz", broken)
    assert command("report", out, "--no-progress")[0] == 0
    assert "1 failed" in (out / "index.html").read_text()
    assert command(*detect)[0] == 0
    index = (out / "index.html").read_text()
    assert "3 scans" in index
    assert "failed" not in re.sub(r"<style>.*?</style>", "", index, flags=re.DOTALL)


@pytest.mark.slow
def test_one_scan_more_is_on_the_page_of_all_scans(small_model, small_cohort, command, tmp_path):
    (row,) = Manifest.read(small_cohort([("a", "FLAIR", "test", "healthy")]))
    folder, out = tmp_path / "scans", tmp_path / "out"
    folder.mkdir()
    shutil.copy(row.image, folder / "sub-a_FLAIR.nii.gz")
    late = folder / "sub-c_FLAIR.nii.gz"
    late.write_bytes(b"no image")
    about = ("-o", out, "-m", small_model, "--threshold", 0.3, "--no-progress", "--json")
    assert command("detect", "-i", folder, *about)[0] == 3
    assert "1 failed" in (out / "index.html").read_text()
    shutil.copy(row.image, late)
    code, printed = command("detect", "-i", late, *about)
    assert (code, json.loads(printed.out)["index"]) == (0, str(out / "index.html"))
    index = (out / "index.html").read_text()
    assert "2 scans" in index
    assert "1 failed" not in index
    assert len((out / "failed.tsv").read_text().splitlines()) == 1


@pytest.mark.slow
def test_detections_in_one_folder_fail_each_by_its_name(small_model, small_cohort, command, tmp_path):
    rows = Manifest.read(small_cohort([("a", "FLAIR", "test", "healthy"), ("b", "FLAIR", "test", "healthy")]))
    out = tmp_path / "out"
    for row in rows:
        detect = ("detect", "-i", row.image, "-o", out, "-m", small_model, "--threshold", 0.3, "--no-progress")
        assert command(*detect)[0] == 0
    for path in out.glob("*_desc-anomaly_probseg.nii.gz"):
        path.unlink()
    code, printed = command("report", out, "--no-progress", "--json")
    assert code == 3
    names = [f"sub-{name}_FLAIR" for name in "ab"]
    assert [one["scan"] for one in json.loads(printed.out)["failed"]] == names
    assert f"got 2 of 2 that failed: {', '.join(names)}" in printed.err


def test_the_traceback_of_detect_stays_where_a_page_is_made(detected, command):
    out, names, _ = detected
    (out / "logs").mkdir()
    (out / "logs" / f"{names.stem}.txt").write_text("Traceback of detect")
    shutil.copytree(out, out / "other")
    code, printed = command("report", out, "--no-progress")
    assert code == 0, printed.err
    assert (out / "logs" / f"{names.stem}.txt").read_text() == "Traceback of detect"


def test_a_page_of_the_user_beside_a_single_detection_stays(detected, command):
    out, names, _ = detected
    (out / "index.html").write_text("<p>ours</p>")
    code, printed = command("report", out, "--no-progress")
    assert (code, printed.out.split()) == (0, [str(names.page)]), printed.err
    assert (out / "index.html").read_text() == "<p>ours</p>"
