"""Unexpected errors while answering a request: one line on the terminal, no details to the browser."""

import sys

UNFORESEEN = "the request failed with an unexpected error; see the terminal of halebrain view"
"""Message to the browser, without details: the client may not be authorised yet, and messages can hold paths."""


def tell_failure(error: BaseException) -> None:
    """Say in one line on standard error what went wrong."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    # A message may repeat what a stranger sent; a terminal would obey control characters.
    shown = "".join(sign if sign.isprintable() else "?" for sign in line)
    sys.stderr.write(f"halebrain: a request could not be answered: {shown}\n")
    sys.stderr.flush()
