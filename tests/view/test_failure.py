"""What nobody foresaw: an answer that a page can show, one line on the terminal, and no path for a stranger."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from halebrain.inference.outputs import OutputNames
from halebrain.view.access import UNFORESEEN, tell_failure
from halebrain.view.visit import Visit


@pytest.fixture
def broken(detection: OutputNames, visit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A visitor of a server whose disk fails, with the path in the message."""

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error", str(detection.folder))

    monkeypatch.setattr(Visit, "read", fail)
    monkeypatch.setattr(Visit, "change", fail)
    return visit(detection.folder)


def message(names: OutputNames) -> dict[str, Any]:
    return {"do": "decide", "mask_sha256": "0" * 64, "lesion": 1, "decision": "open", "note": ""}


def test_a_page_that_fails_is_answered_in_plain_text(
    broken: Any, detection: OutputNames, capsys: pytest.CaptureFixture[str]
) -> None:
    answer, content = broken.ask("GET", f"/{detection.page.name}")
    assert answer.status == 500
    assert content.decode() == f"HaleBrain: {UNFORESEEN}\n"
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "OSError" in said
    assert str(detection.folder) in said
    assert "Traceback" not in said


def test_a_change_that_fails_is_answered_as_the_page_reads_it(broken: Any, detection: OutputNames) -> None:
    assert broken.post(f"/{detection.page.name}", message(detection)) == (500, {"error": UNFORESEEN})


def test_who_has_no_token_learns_nothing_of_it(broken: Any, detection: OutputNames) -> None:
    status, content = broken.get(f"/{detection.page.name}", leave_out="Authorization")
    assert status == 403
    assert b"sub-01" not in content


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_too_many_fields_are_refused(
    detection: OutputNames, visit: Callable[..., Any], capsys: pytest.CaptureFixture[str], method: str
) -> None:
    visitor = visit(detection.folder)
    many = "/?token=wrong" + "".join(f"&f{n}=1" for n in range(20))
    answer, content = visitor.ask(method, many, leave_out="Authorization")
    assert answer.status == 400
    assert content == (b"" if method == "HEAD" else b"HaleBrain: an address may have at most 8 fields\n")
    assert capsys.readouterr().err == ""


def test_what_fails_outside_an_answer_is_one_line_too(
    detection: OutputNames, visit: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    server = visit(detection.folder).server
    for error in (ConnectionResetError("gone"), TimeoutError("silent"), ValueError("of\nours")):
        try:
            raise error
        except (OSError, ValueError):
            server.handle_error(None, None)
    assert capsys.readouterr().err == "halebrain: a request could not be answered: ValueError: of ours\n"


def test_a_message_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    tell_failure(ValueError("\x1b[2Jgone\r\n\x07é"))
    assert re.fullmatch(r"halebrain: .*: ValueError: \?\[2Jgone \?é\n", capsys.readouterr().err)
