"""Other processes of the command line, started to do a share of this one's work."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

PROGRAM = (sys.executable, "-c", "from halebrain.cli.main import main; main()")
"""Starts the command line, wherever its script is installed."""
Process = subprocess.Popen[bytes]


def start_command(arguments: Sequence[str], *, environment: Mapping[str, str], prints: bool = True) -> Process:
    """Start `halebrain` with arguments and further variables; `prints` is whether its results are printed too."""
    printed = None if prints else subprocess.DEVNULL
    own = os.environ | dict(environment)
    return subprocess.Popen([*PROGRAM, *arguments], env=own, stdin=subprocess.DEVNULL, stdout=printed)


def end_commands(running: Sequence[Process], *, wait_s: float, ask: bool = False) -> None:
    """Wait for processes to end, and kill those that are still there after `wait_s` seconds each.

    `ask` ends them as an interrupt does, so that they save what they have.
    """
    for process in running:
        if ask and process.poll() is None:
            process.terminate()
    for process in running:
        try:
            process.wait(timeout=wait_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
