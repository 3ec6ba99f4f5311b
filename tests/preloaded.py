"""Programs without the wait for their imports: a process that has loaded them forks for each call.

A shell script of the documents calls `halebrain` and `python` dozens of times, and each would first spend seconds on
imports. Here both names on the `PATH` are small clients: they hand their arguments, folder, environment and open files
to a server, which forks; the child is the program from its first line on. Nothing of one call is seen by the next.
"""

import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

_IMPORTS = (
    "halebrain.cli.main",
    "halebrain.api",
    "halebrain.benchmarking",
    "halebrain.training.segmenter",
    "halebrain.training.reconstructor",
    "halebrain.report.scan_page",
    "halebrain.simulation.generate",
    "lightning_fabric",
    "matplotlib.pyplot",
    "nibabel",
    "nilearn.datasets",
    "nilearn.plotting",
    "pydicom",
    "scipy.ndimage",
    "SimpleITK",
    "torch",
)
"""What nearly every program loads; none of it starts a thread, which a fork would lose."""
_CLIENT = """#!{python} -IS
import json, os, socket, struct, sys
call = json.dumps([{name!r}, sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect({place!r})
    socket.send_fds(server, [struct.pack("<I", len(call))], [0, 1, 2])
    server.sendall(call)
    code = server.recv(1)
sys.exit(code[0] if code else 70)
"""


@contextlib.contextmanager
def preloaded_programs(folder: Path) -> Iterator[Path]:
    """Serve `halebrain` and `python`; yield the folder that goes first on the `PATH`."""
    programs = folder / "programs"
    programs.mkdir()
    # The name of a socket has room for about a hundred letters, fewer than the folders of pytest may have.
    place = f"\0halebrain-tests-{os.getpid()}-{id(programs)}"
    for name in ("halebrain", "python", "python3"):
        path = programs / name
        path.write_text(_CLIENT.format(python=sys.executable, name=name, place=place))
        path.chmod(0o755)
    # What is computed before a fork must start no pool of threads: a child that asks for more would wait forever.
    alone = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with subprocess.Popen([sys.executable, __file__, place[1:]], stdout=subprocess.PIPE, env=alone) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        try:
            yield programs
        finally:
            server.terminate()


def _serve(place: str) -> None:
    for name in _IMPORTS:
        importlib.import_module(name)
    import torch

    from halebrain.preprocessing.geometry import working_grid
    from halebrain.preprocessing.quality.contrast import tissue_priors
    from halebrain.preprocessing.template import load_template

    # Kept in memory by every program that reads a scan: the template, and its tissues on the grid of the small models.
    load_template()
    tissue_priors(working_grid((48, 48, 40), 4.0))

    # Tests run two at a time; more threads than cores would wait for each other.
    torch.set_num_threads(1)
    assert threading.active_count() == 1, "a fork copies no threads"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0" + place)
        server.listen(64)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            caller, _ = server.accept()
            if os.fork() == 0:
                server.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _answer(caller)
            caller.close()


def _answer(caller: socket.socket) -> None:
    """Run one call in a child of its own, tell its exit code, and end."""
    size, files, *_ = socket.recv_fds(caller, 4, 3)
    call = b""
    while len(call) < struct.unpack("<I", size)[0]:
        call += caller.recv(1 << 20)
    child = os.fork()
    if child == 0:
        caller.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        _become(*json.loads(call))
    _, status = os.waitpid(child, 0)
    caller.sendall(bytes([os.waitstatus_to_exitcode(status) & 0xFF]))
    os._exit(0)


def _become(name: str, words: list[str], folder: str, environment: dict[str, str]) -> None:
    """Run a program to its end, as if it had just been started."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    try:
        if name == "halebrain":
            _run_halebrain(words)
        else:
            _run_python(words)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            sys.stderr.write(f"{stop.code}\n")
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:
            stream.flush()
    # Handlers of the end of a process belong to the server; worker pools of the call ended with it.
    os._exit(code)


def _run_halebrain(words: list[str]) -> None:
    from halebrain.cli.main import main

    sys.argv = ["halebrain", *words]
    main()


def _run_python(words: list[str]) -> None:
    kind, *rest = words
    sys.path.insert(0, "")
    if kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(kind).parent)
        sys.argv = words
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    _serve(sys.argv[1])
