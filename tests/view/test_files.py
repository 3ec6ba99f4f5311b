"""What is served: files of detections below one folder, by whatever spelling others are asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from halebrain.cli.view import open_server
from halebrain.core.errors import MissingInputError
from halebrain.inference.outputs import OutputNames
from halebrain.view.files import find_file


@pytest.fixture
def folder(detection: OutputNames) -> Path:
    """A detection with things beside and above it that are nobody's business."""
    folder = detection.folder
    for name in ("secret.json", "sub-01_desc-secret.tsv"):
        (folder.parent / name).write_text("secret")
    (folder.parent / "out-other").mkdir()
    (folder.parent / "out-other" / "a_desc-b_c.tsv").write_text("secret")
    for name in (".hidden_desc-a.tsv", "notes.txt", "page.html", "plain.json", "a_desc-b_c.py", "a_desc-b.html"):
        (folder / name).write_text("secret")
    (folder / ".git").mkdir()
    (folder / ".git" / "a_desc-b_c.json").write_text("secret")
    return folder


def test_every_file_of_a_detection_is_served_as_what_it_is(detection: OutputNames, visit: Callable[..., Any]) -> None:
    visitor = visit(detection.folder)
    kinds = {"html": "text/html", "png": "image/png", "jpg": "image/jpeg", "json": "application/json"}
    kinds |= {"tsv": "text/tab-separated-values", "gz": "application/gzip"}
    for path in detection.folder.iterdir():
        answer, content = visitor.ask("GET", f"/{path.name}")
        if path == detection.display:  # no page asks for it
            assert answer.status == 404
            continue
        assert answer.status == 200, path.name
        assert answer.headers["Content-Type"].startswith(kinds[path.name.rpartition(".")[2]])
        assert path.suffix == ".html" or content == path.read_bytes()


@pytest.mark.parametrize(
    "target",
    [
        "/../secret.json",
        "/%2e%2e/sub-01_desc-secret.tsv",
        "/..%2fsub-01_desc-secret.tsv",
        "/..%2Fsub-01_desc-secret.tsv",
        "/%2e%2e%2fsub-01_desc-secret.tsv",
        "/%252e%252e%252fsub-01_desc-secret.tsv",
        "/..%5csub-01_desc-secret.tsv",
        "/..\\sub-01_desc-secret.tsv",
        "/a/../../sub-01_desc-secret.tsv",
        "/./../sub-01_desc-secret.tsv",
        "/../out-other/a_desc-b_c.tsv",
        "/..;/sub-01_desc-secret.tsv",
        "/%c0%ae%c0%ae/sub-01_desc-secret.tsv",
        "/sub-01_desc-secret.tsv%00.html",
        "//sub-01_desc-secret.tsv",
        "/TOP/sub-01_desc-secret.tsv",
        "/%2fTOP%2fsub-01_desc-secret.tsv",
        "//TOP/sub-01_desc-secret.tsv",
        "TOP/sub-01_desc-secret.tsv",
        "file://TOP/sub-01_desc-secret.tsv",
        "/.hidden_desc-a.tsv",
        "/%2ehidden_desc-a.tsv",
        "/.git/a_desc-b_c.json",
        "/notes.txt",
        "/page.html",
        "/plain.json",
        "/a_desc-b_c.py",
        "/a_desc-b.html",
        "/.",
        "/..",
        "/%ff",
        "/" + "a" * 5000 + "_desc-a_b.tsv",
    ],
)
def test_nothing_else_is_served(folder: Path, visit: Callable[..., Any], target: str) -> None:
    status, content = visit(folder).get(target.replace("TOP", folder.parent.as_posix().lstrip("/")))
    assert status == 404
    assert b"secret" not in content.replace(b"secret_", b"")


def test_links_are_followed_within_the_folder_only(folder: Path, detection: OutputNames) -> None:
    links = {
        "out_desc-a_file.tsv": folder.parent / "sub-01_desc-secret.tsv",
        "out_desc-a_hidden.tsv": folder / ".hidden_desc-a.tsv",
        "out_desc-a_other.tsv": folder / "notes.txt",
        "out_desc-a_self.tsv": folder / "out_desc-a_self.tsv",
        "away": folder.parent / "out-other",
    }
    for name, to in links.items():
        (folder / name).symlink_to(to)
        assert find_file(folder, f"/{name}") is None, name
    assert find_file(folder, "/away/a_desc-b_c.tsv") is None
    (folder / "within_desc-a_page.tsv").symlink_to(detection.file("anomaly", "lesions", ".tsv").name)
    assert find_file(folder, "/within_desc-a_page.tsv") is not None
    (folder.parent / "linked").symlink_to(folder)
    assert find_file(folder.parent / "linked", f"/{detection.page.name}") == detection.page.resolve()


def test_another_page_called_index_is_not_ours(folder: Path, visit: Callable[..., Any]) -> None:
    (folder / "index.html").write_text("<p>somebody else's secret")
    visitor = visit(folder)
    assert visitor.get("/index.html")[0] == 404
    assert visitor.server.visit.start.endswith("_report.html")


@pytest.mark.slow
def test_there_must_be_something_to_show(tmp_path: Path, detection: OutputNames, make_detection: Any) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(MissingInputError, match="halebrain detect"):
            open_server(folder)
    make_detection(detection.folder / "second", "sub-02_FLAIR")
    with pytest.raises(MissingInputError, match="halebrain report"):  # two scans, and no page of both
        open_server(detection.folder)
