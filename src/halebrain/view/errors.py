"""Errors of the review server: a refused request, and an unexpected failure, told in one line on the terminal."""

import sys
from http import HTTPStatus

UNFORESEEN = "the request failed with an unexpected error; see the terminal of halebrain view"
"""Message to the browser, without details: the client may not be authorised yet, and messages can hold paths."""


class RefusalError(Exception):
    """A request that is not answered as it was asked.

    Args:
        status: The code of the answer.
        message: One line that says which rule does not hold.
    """

    def __init__(self, status: HTTPStatus, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(message)


def tell_failure(error: BaseException) -> None:
    """Say in one line on standard error what went wrong."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    # A message may repeat what a stranger sent; a terminal would obey control characters.
    shown = "".join(sign if sign.isprintable() else "?" for sign in line)
    sys.stderr.write(f"halebrain: a request could not be answered: {shown}\n")
    sys.stderr.flush()
