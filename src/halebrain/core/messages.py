"""Messages of a workflow to its user: warnings and notes, sent through a callable that the caller chooses."""

import logging
from collections.abc import Callable

_log = logging.getLogger("halebrain")
Notify = Callable[[str], None]
"""Receives one message, a line without the name of the program."""


def log_message(text: str) -> None:
    """Send a message to the logger `halebrain`: what a workflow does with its messages unless told otherwise."""
    _log.warning("%s", text)
