"""The review server: this machine only; access control first, then the request; security headers on every answer."""

import json
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs

from halebrain.core.errors import HalebrainError, UnavailableError
from halebrain.view.access import ADDRESS, UNFORESEEN, Access, RefusalError, tell_failure
from halebrain.view.files import KINDS, kind_of
from halebrain.view.messages import parse_message
from halebrain.view.visit import PAGE_POLICY, POLICY, Visit

BODY_BYTES = 16_384
_QUERY_FIELDS = 8
_ICON = "/favicon.ico"
_HTML, _JSON, _TEXT = KINDS[".html"], KINDS[".json"], "text/plain; charset=utf-8"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Handler(BaseHTTPRequestHandler):
    """Answers GET, HEAD and POST."""

    visit: Visit
    access: Access
    timeout = 30  # seconds that a connection may be silent

    def do_GET(self) -> None:
        """Answer with a file or a page."""
        self._guarded(self._get, _TEXT)

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def do_POST(self) -> None:
        """Change what a page asks to be changed."""
        self._guarded(self._post, _JSON)

    def _refuse_method(self) -> None:
        def refuse() -> None:
            raise RefusalError(HTTPStatus.METHOD_NOT_ALLOWED, "only GET, HEAD and POST are supported")

        self._guarded(refuse, _TEXT)

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _refuse_method  # noqa: N815

    def _guarded(self, answer: Callable[[], None], kind: str) -> None:
        """Answer, or say why not."""
        try:
            self.access.check_host(self.headers.get_all("Host", []))
            answer()
        except RefusalError as refused:
            self._refuse(refused.status, refused.message, kind)
        except HalebrainError as error:
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), kind)
        except (ConnectionError, TimeoutError):  # the browser closed the connection
            raise
        except Exception as error:  # so that the page can show the error instead of a dropped connection
            tell_failure(error)
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, UNFORESEEN, kind)

    def _refuse(self, status: HTTPStatus, message: str, kind: str) -> None:
        text = json.dumps({"error": message}) if kind == _JSON else f"HaleBrain: {message}\n"
        self._send(status, text.encode("utf-8"), kind)

    def _get(self) -> None:
        target, _, query = self.path.partition("?")
        given = _tokens(query) if target == "/" else []
        if given:
            self.access.admit(given[0])
            self._welcome()
            return
        if target == _ICON:  # what every browser asks for, without the cookie; there is none
            self._send(HTTPStatus.NO_CONTENT, b"", _TEXT)
            return
        self._check_session()
        if target == "/":
            self._send(HTTPStatus.SEE_OTHER, b"", _TEXT, {"Location": self._start})
            return
        path, content = self.visit.read(self.access.within(target))
        kind = kind_of(path) or _TEXT
        self._send(HTTPStatus.OK, content, kind, policy=PAGE_POLICY if kind == _HTML else POLICY)

    def _welcome(self) -> None:
        """Give the cookie, then let the page itself go on: a redirect would count as coming from elsewhere."""
        page = f'<!doctype html><meta http-equiv="refresh" content="0; url={self._start}"><title>HaleBrain</title>'
        page += f'<p><a href="{self._start}">Open the page</a></p>'
        self._send(HTTPStatus.OK, page.encode("utf-8"), _HTML, {"Set-Cookie": self.access.cookie})

    @property
    def _start(self) -> str:
        return f"{self.access.space}{self.visit.start}"

    def _post(self) -> None:
        self.access.check_origin(self.headers.get_all("Origin", []), self.headers.get("Sec-Fetch-Site"))
        self._check_session()
        review = self.visit.change(self.access.within(self.path), parse_message(self._body()))
        self._send(HTTPStatus.OK, json.dumps(review).encode("utf-8"), _JSON)

    def _check_session(self) -> None:
        self.access.check_session(self.headers.get_all("Cookie", []), self.headers.get("Authorization"))

    def _body(self) -> bytes:
        """Return the body of a request."""
        if self.headers.get_content_type() != _JSON:
            raise RefusalError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the body must be {_JSON}")
        lengths = self.headers.get_all("Content-Length", [])
        if (
            len(lengths) != 1
            or not (lengths[0].isascii() and lengths[0].isdigit())
            or "Transfer-Encoding" in self.headers
        ):
            raise RefusalError(HTTPStatus.LENGTH_REQUIRED, "the body must have one Content-Length")
        if len(lengths[0]) > 9 or int(lengths[0]) > BODY_BYTES:
            raise RefusalError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body must have at most {BODY_BYTES} bytes")
        return self.rfile.read(int(lengths[0]))

    def _send(
        self,
        status: HTTPStatus,
        content: bytes,
        kind: str,
        more: dict[str, str] | None = None,
        *,
        policy: str = POLICY,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", policy)
        for name, value in (more or {}).items():
            self.send_header(name, value)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD, POST")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def end_headers(self) -> None:
        """Add what every answer has, those of the library's own errors too."""
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def version_string(self) -> str:
        """Return a server name without versions."""
        return "HaleBrain"

    def log_message(self, *_: Any) -> None:
        """Write no log: addresses may hold the token and names of scans."""


def _tokens(query: str) -> list[str]:
    """Return the tokens that the query of an address holds."""
    try:
        return parse_qs(query, max_num_fields=_QUERY_FIELDS).get("token", [])
    except ValueError as error:
        message = f"an address may have at most {_QUERY_FIELDS} fields"
        raise RefusalError(HTTPStatus.BAD_REQUEST, message) from error


class ViewServer(ThreadingHTTPServer):
    """Serves one folder; it listens at once (port 0 = any that is free) and answers in `serve_forever`."""

    daemon_threads = True

    def __init__(self, visit: Visit, *, port: int = 0) -> None:
        self.visit = visit
        try:
            super().__init__((ADDRESS, port), Handler)
        except OSError as error:
            raise UnavailableError(
                "the port must be free",
                received=f"{port}: {error.strerror or error}",
                remedy="choose another --port, or remove the option",
            ) from error
        self.access = Access(self.server_port)
        self.RequestHandlerClass = type("VisitHandler", (Handler,), {"visit": visit, "access": self.access})

    def server_bind(self) -> None:
        """Bind without asking a name server for the name of this machine."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore closed connections, and print one line for all other errors."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError | TimeoutError):
            tell_failure(error)

    def stop(self) -> None:
        """End the service; what is being written is finished first."""
        with self.visit.lock:
            self.server_close()
