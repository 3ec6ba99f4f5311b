"""What nobody foresaw while a request was answered: all of it in one line on the terminal, nothing of it elsewhere."""

import sys

UNFORESEEN = "this could not be done: something unforeseen went wrong; the terminal of halebrain view says what"
"""What a browser is told: whoever asks may not have shown the token yet, and messages hold paths."""


def tell_failure(error: BaseException) -> None:
    """Say in one line on standard error what went wrong."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    # A message may repeat what a stranger sent; a terminal would obey control characters.
    shown = "".join(sign if sign.isprintable() else "?" for sign in line)
    sys.stderr.write(f"halebrain: a request could not be answered: {shown}\n")
    sys.stderr.flush()
