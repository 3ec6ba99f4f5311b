"""The review server: on this machine only, with access by token."""

import sys
from http.server import ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from halebrain.core.errors import UnavailableError
from halebrain.view.access import ADDRESS, Access
from halebrain.view.failure import tell_failure
from halebrain.view.handler import Handler
from halebrain.view.visit import Visit


class ViewServer(ThreadingHTTPServer):
    """Serves one folder; it listens at once and answers in `serve_forever`.

    Args:
        visit: What is shown.
        port: 0 = any that is free.

    Raises:
        UnavailableError: The port is taken or may not be used.
    """

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
