"""Decisions on findings: written beside the detection, read again, and never taken for those on another mask."""

import csv
import json
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from markupsafe import escape

from halebrain.core import files
from halebrain.core.errors import DataError, UnavailableError
from halebrain.inference.outputs import OutputNames
from halebrain.io.checksum import file_sha256
from halebrain.report.embedding import read_page
from halebrain.view import scan as view_scan
from halebrain.view.review import COLUMNS, read_review
from halebrain.workflows import remake_pages
from halebrain.workflows.pages import write_index
from halebrain.workflows.remake_pages import remake_page
from halebrain.workflows.remake_settings import RemakeSettings


@pytest.fixture
def visitor(detection: OutputNames, visit: Callable[..., Any]) -> Any:
    return visit(detection.folder)


def shown(visitor: Any, target: str) -> dict[str, Any]:
    """Return what a served page knows of the review."""
    status, content = visitor.get(target)
    assert status == 200
    found = re.search(r'id="review-data">(.*?)</script>', content.decode(), re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def decide(visitor: Any, names: OutputNames, lesion: int, decision: str, note: str = "", **more: Any) -> Any:
    message = {"do": "decide", "lesion": lesion, "decision": decision, "note": note}
    message["mask_sha256"] = file_sha256(names.file("anomaly", "mask"))
    return visitor.post(f"/{names.page.name}", message | more)


def save(visitor: Any, names: OutputNames, threshold: float | None, minimum: float, **more: Any) -> Any:
    message = {"do": "save", "threshold": threshold, "min_lesion_mm3": minimum}
    message["mask_sha256"] = file_sha256(names.file("anomaly", "mask"))
    return visitor.post(f"/{names.page.name}", message | more)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_decision_is_written_told_and_taken_back(visitor: Any, detection: OutputNames) -> None:
    target, note = f"/{detection.page.name}", 'a "vessel", </script><b>'
    assert shown(visitor, target)["decisions"] == {}
    assert not detection.review.exists()
    status, said = decide(visitor, detection, 2, "rejected", note)
    assert status == 200
    assert said["decisions"]["2"]["decision"] == "rejected"
    row = rows(detection.review)[0]
    assert tuple(row) == COLUMNS
    lesion = rows(detection.file("anomaly", "lesions", ".tsv"))[1]
    assert {key: float(row[key]) for key in ("i", "j", "k", "x_mni_mm", "volume_ml")} == {
        key: float(lesion[key]) for key in ("i", "j", "k", "x_mni_mm", "volume_ml")
    }
    assert (row["lesion"], row["decision"], row["note"], row["threshold"]) == ("2", "rejected", note, "0.5")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["decided_at"])
    assert shown(visitor, target)["decisions"]["2"]["note"] == note
    decide(visitor, detection, 2, "accepted")
    decide(visitor, detection, 1, "open", "look again")
    assert [(row["lesion"], row["decision"], row["note"]) for row in rows(detection.review)] == [
        ("2", "accepted", ""),
        ("1", "open", "look again"),
    ]
    decide(visitor, detection, 1, "open")
    decide(visitor, detection, 2, "open")
    assert rows(detection.review) == []
    assert not list(detection.folder.glob(".part-*"))


def test_two_services_on_one_folder_lose_no_decision(
    detection: OutputNames, visit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two processes: each has a lock of its own for what goes on inside it."""
    read = view_scan.read_review

    def slow(path: Path) -> Any:
        found = read(path)
        time.sleep(0.05)  # in which the other would write
        return found

    monkeypatch.setattr(view_scan, "read_review", slow)
    visitors = [visit(detection.folder) for _ in range(2)]
    with ThreadPoolExecutor(6) as pool:
        asked = [(visitors[n % 2], lesion) for n in range(2) for lesion in (1, 2, 3)]
        answers = list(pool.map(lambda who: decide(who[0], detection, who[1], "accepted", "seen"), asked))
    assert [status for status, _ in answers] == [200] * 6
    assert sorted(row["lesion"] for row in rows(detection.review)) == ["1", "2", "3"]
    assert not list(detection.folder.glob(".*"))


@pytest.mark.slow
def test_a_report_beside_a_view_changes_a_scan_first_or_after_it(
    detection: OutputNames, visitor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, begun = remake_pages.read_map, threading.Event()

    def slow(path: Path) -> Any:
        if not begun.is_set():
            begun.set()
            time.sleep(0.5)  # in which the view would write
        return read(path)

    monkeypatch.setattr(remake_pages, "read_map", slow)
    with ThreadPoolExecutor(1) as pool:
        reported = pool.submit(remake_page, detection.provenance, RemakeSettings(threshold=0.75))
        assert begun.wait(30)
        status, said = save(visitor, detection, 0.85, 20)
        assert reported.result(30) == detection.page
    # The view waited, and then refused: the mask that its reader saw is gone.
    assert status == 409, said
    assert json.loads(detection.provenance.read_text())["threshold"]["value"] == 0.75
    assert read_page(detection.page)[0]["threshold"]["value"] == 0.75
    assert not list(detection.folder.glob(".*"))


def test_a_report_is_told_what_holds_a_scan(detection: OutputNames, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = files.file_lock
    monkeypatch.setattr(remake_pages, "file_lock", partial(hold, wait_s=0.1))
    with hold(detection.page), pytest.raises(UnavailableError, match=r"\.lock-.*report\.html"):
        remake_page(detection.provenance, RemakeSettings())


def test_a_finding_that_is_not_there_is_refused(visitor: Any, detection: OutputNames) -> None:
    status, said = decide(visitor, detection, 4, "rejected")
    assert (status, said) == (422, {"error": "this mask has no finding 4"})
    assert not detection.review.exists()


def test_a_decision_on_another_mask_is_refused(visitor: Any, detection: OutputNames) -> None:
    assert decide(visitor, detection, 1, "rejected", mask_sha256="0" * 64)[0] == 409
    assert save(visitor, detection, 0.6, 0, mask_sha256="0" * 64)[0] == 409
    assert not detection.review.exists()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"do": "decide"}', b"\xff"])
def test_what_is_no_message_is_refused(visitor: Any, detection: OutputNames, body: bytes) -> None:
    before = contents(detection.folder)
    status, said = visitor.post(f"/{detection.page.name}", body)
    assert status == 400
    assert said["error"]
    assert contents(detection.folder) == before


def test_a_body_must_be_short_and_of_a_stated_length_and_type(visitor: Any, detection: OutputNames) -> None:
    target = f"/{detection.page.name}"
    for length in ("16385", "9" * 30):
        assert visitor.post(target, b"", Content_Length=length)[0] == 413
    for length in ("-1", "+1", "1_0", "", "0x10", "²"):
        assert visitor.post(target, b"", Content_Length=length.encode("utf-8").decode("latin-1"))[0] == 411
    assert visitor.post(target, b"", leave_out="Content-Length")[0] == 411
    assert visitor.post(target, b"{}", Transfer_Encoding="chunked")[0] == 411
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a"):
        assert visitor.post(target, b"{}", Content_Type=kind)[0] == 415
    assert visitor.post(target, b" " * 16384)[0] == 400


@pytest.mark.parametrize(
    "target", ["/", "/index.html", "/../x_desc-anomaly_report.html", "/x_desc-anomaly_report.html"]
)
def test_a_change_needs_a_page(visitor: Any, detection: OutputNames, target: str) -> None:
    message = {"do": "decide", "mask_sha256": "0" * 64, "lesion": 1, "decision": "open", "note": ""}
    assert visitor.post(target, message)[0] == 404


@pytest.mark.slow
def test_a_threshold_is_saved_with_table_and_page(visitor: Any, detection: OutputNames) -> None:
    before = contents(detection.folder)
    old = file_sha256(detection.file("anomaly", "mask"))
    decide(visitor, detection, 1, "accepted", "certain")
    decide(visitor, detection, 3, "rejected")
    status, said = save(visitor, detection, 0.75, 100)
    assert status == 200
    mask = np.asarray(nibabel.load(detection.file("anomaly", "mask")).dataobj) > 0
    table = rows(detection.file("anomaly", "lesions", ".tsv"))
    provenance = json.loads(detection.provenance.read_text())
    data, volumes = read_page(detection.page)
    assert int(mask.sum()) == 80 + 24
    assert len(table) == len(data["findings"]) == provenance["n_lesions"] == 2
    assert sum(float(row["volume_ml"]) for row in table) == pytest.approx(mask.sum() * 8 / 1000)
    assert (provenance["threshold"]["value"], provenance["threshold"]["name"]) == (0.75, "fixed")
    assert data["threshold"]["value"] == 0.75
    assert data["min_lesion_mm3"] == provenance["threshold"]["min_lesion_mm3"] == 100
    assert int((volumes["score"].codes >= data["threshold"]["level"]).sum()) == int(mask.sum())
    after = contents(detection.folder)
    changed = {name.partition("desc-")[2] for name in before if before[name] != after[name]}
    assert {"anomaly_mask.nii.gz", "anomaly_lesions.tsv", "anomaly_report.html", "anomaly_provenance.json"} <= changed
    assert {name for name in changed if name.endswith(".nii.gz")} == {"anomaly_mask.nii.gz"}
    # What was decided belongs to the former mask: it is told, and does not hold.
    assert said["decisions"] == {}
    assert said["mask_sha256"] != old
    assert said["earlier"] == shown(visitor, f"/{detection.page.name}")["earlier"]
    assert said["earlier"]["1"] | {"decided_at": ""} == {
        **{"decision": "accepted", "note": "certain", "decided_at": ""},
        **{"threshold": 0.5, "min_lesion_mm3": 20.0},
    }
    decide(visitor, detection, 1, "rejected")
    assert len(rows(detection.review)) == 3
    # And the former mask brings its decisions back.
    status, said = save(visitor, detection, 0.5, 20)
    assert said["mask_sha256"] == old
    assert {number: known["decision"] for number, known in said["decisions"].items()} == {
        "1": "accepted",
        "3": "rejected",
    }


@pytest.mark.slow
def test_the_smallest_size_alone_keeps_the_name_of_the_threshold(visitor: Any, detection: OutputNames) -> None:
    assert save(visitor, detection, None, 100)[0] == 200
    threshold = json.loads(detection.provenance.read_text())["threshold"]
    assert threshold == {"value": 0.5, "name": "dice", "min_lesion_mm3": 100.0, "method": "max"}
    assert len(rows(detection.file("anomaly", "lesions", ".tsv"))) == 2


def test_the_dialog_knows_of_a_dicom_seg_that_goes(visitor: Any, detection: OutputNames) -> None:
    target = f"/{detection.page.name}"
    assert shown(visitor, target)["segmentation"] is False
    detection.segmentation.write_bytes(b"of the old mask")
    assert shown(visitor, target)["segmentation"] is True
    assert decide(visitor, detection, 1, "accepted")[1]["segmentation"] is True
    assert b"The DICOM-SEG of the old mask is removed" in visitor.get(target)[1]
    assert save(visitor, detection, 0.75, 0)[1]["segmentation"] is False
    assert not detection.segmentation.exists()


def test_the_dialog_knows_of_a_filled_scan_that_goes(visitor: Any, detection: OutputNames) -> None:
    target = f"/{detection.page.name}"
    assert shown(visitor, target)["filled"] is False
    made = json.loads(detection.provenance.read_text()) | {"fill_margin_mm": 1.0, "filled_ml": 0.5}
    for given, goes in (("ab", False), (None, True)):
        detection.provenance.write_text(json.dumps(made | {"fill_mask_sha256": given}))
        assert shown(visitor, target)["filled"] is goes
    assert b"The scan in which the old mask is filled is removed" in visitor.get(target)[1]
    assert save(visitor, detection, 0.75, 0)[1]["filled"] is False


def test_a_mask_that_cannot_be_made_leaves_all_as_it_was(visitor: Any, detection: OutputNames) -> None:
    detection.file("residual", "").unlink()
    before = contents(detection.folder)
    status, said = save(visitor, detection, 0.75, 0)
    assert status == 422
    assert "desc-residual" in said["error"]
    assert contents(detection.folder) == before


def test_a_damaged_table_is_told_and_not_replaced(visitor: Any, detection: OutputNames) -> None:
    detection.review.write_text("lesion\tdecision\n1\trejected\n")
    with pytest.raises(DataError, match="fix or move"):
        read_review(detection.review)
    assert "every column" in shown(visitor, f"/{detection.page.name}")["error"]
    assert decide(visitor, detection, 1, "accepted")[0] == 422
    assert "rejected" in detection.review.read_text()


def test_a_provenance_of_another_scan_is_refused(visitor: Any, detection: OutputNames) -> None:
    about = json.loads(detection.provenance.read_text())
    detection.provenance.write_text(json.dumps(about | {"scan": "../../elsewhere"}))
    assert decide(visitor, detection, 1, "rejected")[0] == 422
    assert "own scan" in shown(visitor, f"/{detection.page.name}")["error"]


def test_the_name_of_a_scan_is_text_and_no_more(
    tmp_path: Path, make_detection: Callable[..., OutputNames], visit: Callable[..., Any]
) -> None:
    evil = "<script>alert(1)<b>'\"&#"
    folder = tmp_path / "many" / "a b&"
    names = make_detection(folder, evil)
    write_index(tmp_path / "many", (), {})
    visitor = visit(tmp_path / "many")
    link = re.search(r'<a href="([^"]+_report\.html)"', visitor.get("/index.html")[1].decode())
    assert link is not None
    address = "/" + link[1]
    status, content = visitor.get(address)
    page = content.decode()
    assert status == 200
    assert "<script>alert" not in page
    assert str(escape(evil)) in page
    assert page.count("<script") == page.count("</script>")
    assert 'http-equiv="Content-Security-Policy"' not in page
    message = {"do": "decide", "lesion": 1, "decision": "accepted", "note": evil}
    message["mask_sha256"] = file_sha256(names.file("anomaly", "mask"))
    assert visitor.post(address, message)[0] == 200
    assert "<script>alert" not in visitor.get(address)[1].decode()
    index = visitor.get("/index.html")[1].decode()
    assert f'"{link[1]}": "1 of 3 reviewed"' in index
    assert "<script>alert" not in index
    assert visitor.post(address, message | {"do": "save", "mask_sha256": "0" * 64})[0] == 400


@pytest.mark.slow
def test_the_page_of_all_scans_follows_a_saved_threshold(
    tmp_path: Path, make_detection: Callable[..., OutputNames], visit: Callable[..., Any]
) -> None:
    names = [make_detection(tmp_path / "many" / f"sub-0{n}", f"sub-0{n}_FLAIR") for n in (1, 2)]
    write_index(tmp_path / "many", (), {})
    visitor = visit(tmp_path / "many")
    assert visitor.server.visit.start == "/index.html"
    message = {"do": "save", "threshold": 0.85, "min_lesion_mm3": 20}
    message["mask_sha256"] = file_sha256(names[1].file("anomaly", "mask"))
    status, _ = visitor.post(f"/sub-02/{names[1].page.name}", message)
    assert status == 200
    index = (tmp_path / "many" / "index.html").read_text()
    assert 'data-title="findings">1<' in index
    assert 'data-title="findings">3<' in index


def test_a_page_on_disk_has_no_controls(detection: OutputNames, visitor: Any) -> None:
    text = detection.page.read_text()
    assert "halebrain view" in text
    assert "review-data" not in text
    assert "fetch(" not in text
    assert "default-src 'none'" in text
    detection.page.write_text(text.replace('id="view-hint"', ""))  # as an earlier version wrote it
    served = visitor.get(f"/{detection.page.name}")[1].decode()
    assert "earlier version" in served
    assert "review-data" not in served
