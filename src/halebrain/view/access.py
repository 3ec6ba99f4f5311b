"""Access control: a local browser with the token, on a page of this server; how a request is refused or fails."""

import secrets
import sys
from collections.abc import Sequence
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie

ADDRESS = "127.0.0.1"
_BEARER = "Bearer "
_COOKIE = "halebrain"
UNFORESEEN = "the request failed with an unexpected error; see the terminal of halebrain view"
"""Message to the browser, without details: the client may not be authorised yet, and messages can hold paths."""


class RefusalError(Exception):
    """A request that is not answered as it was asked."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(message)


class Access:
    """The secrets of one server, and the rules of who is let in.

    The token gives access: it stands in the address that is printed, or in a header. The session is another secret,
    which the cookie holds. A ticket is a token that is good once: what starts a browser shows its arguments to every
    user of the machine.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.token = secrets.token_urlsafe(32)
        # Browsers send a cookie to every port of a machine, but only to its path: servers on other ports,
        # which do not know this path, do not receive the session.
        self.space = f"/{secrets.token_urlsafe(12)}"
        self._session = secrets.token_urlsafe(32)
        self._tickets: set[str] = set()

    @property
    def hosts(self) -> tuple[str, str]:
        """Host names of the server for a local browser."""
        return f"{ADDRESS}:{self.port}", f"localhost:{self.port}"

    @property
    def cookie(self) -> str:
        """The header that makes a browser remember the session; no script reads it, no other site sends it."""
        return f"{_COOKIE}={self._session}; Path={self.space}/; HttpOnly; SameSite=Strict"

    def address(self, token: str) -> str:
        """Return the address that lets a browser in."""
        return f"http://{self.hosts[0]}/?token={token}"

    def ticket(self) -> str:
        """Return a new token that is good once."""
        made = secrets.token_urlsafe(32)
        self._tickets.add(made)
        return made

    def within(self, target: str) -> str:
        """Return the path of an address without the space of this server."""
        if not target.startswith(f"{self.space}/"):
            raise RefusalError(HTTPStatus.NOT_FOUND, "not found")
        return target.removeprefix(self.space)

    def check_host(self, hosts: Sequence[str]) -> None:
        """Refuse a request that was sent to another name: a page elsewhere whose name leads here."""
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            raise RefusalError(HTTPStatus.FORBIDDEN, f"the Host header must be {' or '.join(self.hosts)}")

    def check_origin(self, origins: Sequence[str], site: str | None) -> None:
        """Refuse a change that a page of another origin asks for."""
        if len(origins) != 1 or origins[0].lower() not in [f"http://{host}" for host in self.hosts]:
            raise RefusalError(HTTPStatus.FORBIDDEN, "the Origin header must be this server")
        if site not in (None, "same-origin"):
            raise RefusalError(HTTPStatus.FORBIDDEN, "requests from other sites are refused")

    def admit(self, token: str) -> None:
        """Take the token of an address; a ticket is spent by it."""
        if _same(token, self.token):
            return
        for ticket in tuple(self._tickets):
            if _same(token, ticket):
                self._tickets.discard(ticket)
                return
        raise _stranger()

    def check_session(self, cookies: Sequence[str], authorization: str | None) -> None:
        """Refuse requests with neither the cookie nor the token in a header."""
        if authorization is not None and authorization.startswith(_BEARER):
            if _same(authorization.removeprefix(_BEARER), self.token):
                return
            raise _stranger()
        try:
            held = SimpleCookie("; ".join(cookies)).get(_COOKIE)
        except CookieError:
            held = None
        if held is None or not _same(held.value, self._session):
            raise _stranger()


def _same(given: str, secret: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "surrogateescape"), secret.encode("utf-8"))


def _stranger() -> RefusalError:
    return RefusalError(HTTPStatus.FORBIDDEN, "open the address that halebrain view printed; it contains the token")


def tell_failure(error: BaseException) -> None:
    """Say in one line on standard error what went wrong."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    # A message may repeat what a stranger sent; a terminal would obey control characters.
    shown = "".join(sign if sign.isprintable() else "?" for sign in line)
    sys.stderr.write(f"halebrain: a request could not be answered: {shown}\n")
    sys.stderr.flush()
