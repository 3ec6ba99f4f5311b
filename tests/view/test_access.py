"""Who is answered: whoever holds the token, on this machine, from a page of this server; and no one else."""

import socket
from collections.abc import Callable
from typing import Any

import pytest

from halebrain.inference.outputs import OutputNames
from halebrain.view.access import Access, RefusalError


@pytest.fixture
def visitor(detection: OutputNames, visit: Callable[..., Any]) -> Any:
    return visit(detection.folder)


@pytest.fixture
def page(detection: OutputNames) -> str:
    return f"/{detection.page.name}"


def raw(visitor: Any, text: str) -> bytes:
    """Send bytes that no well-behaved client sends; return the first line of the answer."""
    with socket.create_connection(("127.0.0.1", visitor.server.server_port), timeout=30) as connection:
        connection.sendall(text.encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").read().partition(b"\r\n")[0]


def test_it_listens_on_this_machine_only(visitor: Any) -> None:
    assert visitor.server.server_address[0] == "127.0.0.1"


def test_the_token_of_the_address_gives_a_cookie_that_lets_in(visitor: Any, page: str) -> None:
    answer, content = visitor.ask("GET", f"/?token={visitor.access.token}", leave_out="Authorization")
    assert answer.status == 200
    assert f"url={visitor.access.space}{page}".encode() in content
    cookie = answer.headers["Set-Cookie"]
    assert cookie.endswith(f"; Path={visitor.access.space}/; HttpOnly; SameSite=Strict")
    assert visitor.access.token not in cookie
    held = cookie.partition(";")[0]
    assert visitor.get(page, leave_out="Authorization", Cookie=f"theme=dark; {held}")[0] == 200
    assert visitor.get(page, leave_out="Authorization", Cookie=held + "x")[0] == 403


def test_a_script_is_led_to_the_first_page(visitor: Any, page: str) -> None:
    head = f"GET / HTTP/1.1\r\nHost: {visitor.host}\r\n"
    assert b" 403 " in raw(visitor, head + "\r\n")
    assert b" 303 " in raw(visitor, head + f"Authorization: Bearer {visitor.access.token}\r\n\r\n")


def test_outside_its_space_there_is_nothing(visitor: Any, page: str) -> None:
    """A cookie is sent to every port of a machine, but to its own path only, which no other server knows."""
    for target in (page, f"/x{page}", f"{visitor.access.space}x{page}", visitor.access.space):
        head = f"GET {target} HTTP/1.1\r\nHost: {visitor.host}\r\n"
        assert b" 403 " in raw(visitor, head + "\r\n")
        assert b" 404 " in raw(visitor, head + f"Authorization: Bearer {visitor.access.token}\r\n\r\n")


@pytest.mark.parametrize("target", ["/", "/nothing.html", "PAGE", "PAGE?token=RIGHT", "/?token=", "/?token=wrong"])
def test_without_the_token_nothing_is_told(visitor: Any, page: str, target: str) -> None:
    target = target.replace("PAGE", page).replace("RIGHT", visitor.access.token)
    answer, content = visitor.ask("GET", target, leave_out="Authorization")
    assert answer.status == 403
    assert b"halebrain view printed" in content
    assert b"sub-01" not in content
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("said", ["Bearer wrong", "Bearer ", "Basic abc", "Bearer \xff\xfe"])
def test_a_wrong_header_is_refused(visitor: Any, page: str, said: str) -> None:
    assert visitor.get(page, Authorization=said)[0] == 403


def test_a_ticket_is_good_once(visitor: Any) -> None:
    ticket = visitor.access.ticket()
    assert visitor.get(f"/?token={ticket}", leave_out="Authorization")[0] == 200
    assert visitor.get(f"/?token={ticket}", leave_out="Authorization")[0] == 403
    assert visitor.get(f"/?token={visitor.access.token}", leave_out="Authorization")[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost", "[::1]:PORT", "a.localhost:PORT"]
)
def test_another_host_is_refused(visitor: Any, page: str, host: str) -> None:
    host = host.replace("PORT", str(visitor.server.server_port))
    assert visitor.get(page, Host=host)[0] == 403
    assert visitor.get(f"/?token={visitor.access.token}", Host=host)[0] == 403


def test_no_host_and_two_hosts_are_refused(visitor: Any, page: str) -> None:
    page = visitor.access.space + page
    head = f"GET {page} HTTP/1.1\r\nAuthorization: Bearer {visitor.access.token}\r\n"
    host = f"Host: {visitor.host}\r\n"
    assert b" 200 " in raw(visitor, head + host + "\r\n")
    assert b" 403 " in raw(visitor, head + "\r\n")
    assert b" 403 " in raw(visitor, head + host + "Host: evil.example\r\n\r\n")
    assert b" 404 " in raw(visitor, head.replace(page, f"http://evil.example{page}") + host + "\r\n")


def test_localhost_is_this_machine_too(visitor: Any, page: str) -> None:
    assert visitor.get(page, Host=f"localhost:{visitor.server.server_port}")[0] == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://HOST", "http://HOST.evil.example", ""]
)
def test_a_change_from_another_origin_is_refused(visitor: Any, page: str, origin: str) -> None:
    status, said = visitor.post(page, {}, Origin=origin.replace("HOST", visitor.host))
    assert status == 403
    assert "Origin" in said["error"]


def test_a_change_needs_origin_and_token(visitor: Any, page: str) -> None:
    assert visitor.post(page, {}, leave_out="Origin")[0] == 403
    assert visitor.post(page, {}, leave_out="Authorization")[0] == 403
    assert visitor.post(page, {}, Sec_Fetch_Site="cross-site")[0] == 403
    assert visitor.post(page, {}, Host="evil.example")[0] == 403
    assert visitor.post(page, {})[0] == 400  # let in, and then read


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_other_methods_are_refused(visitor: Any, page: str, method: str) -> None:
    answer, _ = visitor.ask(method, page)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, POST")


@pytest.mark.parametrize("target", ["PAGE", "/nothing.html", "/?token=wrong"])
def test_every_answer_has_the_headers_that_keep_it_here(visitor: Any, page: str, target: str) -> None:
    answer, _ = visitor.ask("GET", target.replace("PAGE", page))
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    policy = answer.headers["Content-Security-Policy"]
    assert {"default-src 'none'", "frame-ancestors 'none'", "form-action 'none'"} <= set(policy.split("; "))
    assert "Python" not in answer.headers["Server"]
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_head_tells_what_get_would(visitor: Any, page: str) -> None:
    whole, content = visitor.ask("GET", page)
    head, nothing = visitor.ask("HEAD", page)
    assert (head.status, nothing) == (200, b"")
    assert head.headers["Content-Length"] == whole.headers["Content-Length"] == str(len(content))
    assert visitor.ask("HEAD", page, leave_out="Authorization")[0].status == 403


def test_secrets_are_long_and_new_each_time() -> None:
    made = [Access(1) for _ in range(3)]
    secrets = {access.token for access in made} | {access.cookie for access in made} | {made[0].ticket()}
    assert len(secrets | {access.space for access in made}) == 10
    assert all(len(access.token) >= 43 for access in made)
    with pytest.raises(RefusalError):
        made[0].admit("")
