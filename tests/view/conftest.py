"""Detections on disk, made without a network, and a server that shows them."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halebrain.cli.view import open_server
from halebrain.core.types import ScanResult
from halebrain.inference.lesions import lesion_table
from halebrain.inference.outputs import OutputNames, write_detection
from halebrain.report.display import display_grid
from halebrain.report.embedding import scan_file, shown_scan
from halebrain.view.server import ViewServer
from halebrain.workflows.pages import render
from stated import provenance

SHAPE = (40, 44, 36)
AFFINE = np.diag([-2.0, 2.0, 2.0, 1.0])
AFFINE[:3, 3] = (40, -50, -30)


def _detection(folder: Path, scan: str = "sub-01_FLAIR") -> OutputNames:
    """Write a detection of a ball of brain with three findings that score 0.9, 0.8 and 0.7; the threshold is 0.5."""
    rng = np.random.default_rng(0)
    index = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"), -1)
    brain = (index**2).sum(axis=-1) < 15**2
    image = np.where(brain, 100 + 20 * rng.random(SHAPE), 0).astype(np.float32)
    score = np.where(brain, 0.2 * rng.random(SHAPE), 0).astype(np.float32)
    score[20:25, 20:24, 15:19], score[12:16, 26:29, 20:22], score[28:30, 22:24, 12:14] = 0.9, 0.8, 0.7
    for peak in ((22, 21, 17), (13, 27, 20), (29, 22, 13)):
        score[peak] += 0.05
    mask, soft = score >= 0.5, np.where(brain, 0.05, 0).astype(np.float32)
    lesions = lesion_table(mask, score, AFFINE, np.eye(4), regions=True)
    about = {
        "scan": scan,
        "threshold": {"value": 0.5, "name": "dice", "min_lesion_mm3": 20.0, "method": "max"},
        "template_to_native": np.eye(4).tolist(),
        "space": "MNI152NLin2009aSym",
        "n_lesions": len(lesions),
        "lesion_volume_ml": 0.9,
        "qc": {"brain_method": "stripped", "flags": []},
        "levels": [250],
    }
    made = provenance(**about)
    names = OutputNames(folder, scan)
    result = ScanResult(score, score, image * np.float32(0.9), soft, soft, brain, AFFINE)
    shown = shown_scan(image, brain, display_grid(AFFINE, brain))
    pages = render(names, result, mask, shown, lesions, made)
    pages[names.display] = scan_file(shown)
    write_detection(names, result, mask, lesions, made, lambda: pages)
    return names


@pytest.fixture(scope="session")
def make_detection() -> Callable[..., OutputNames]:
    return _detection


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _detection(tmp_path_factory.mktemp("made")).folder


@pytest.fixture
def detection(made: Path, tmp_path: Path) -> OutputNames:
    """One scan in the folder `out`."""
    return OutputNames(Path(shutil.copytree(made, tmp_path / "out")), "sub-01_FLAIR")


class Visitor:
    """Asks a server as a browser of this machine does, with the token in a header unless told otherwise."""

    def __init__(self, server: ViewServer) -> None:
        self.server, self.access = server, server.access
        self.host = f"127.0.0.1:{server.server_port}"

    def ask(
        self, method: str, target: str, body: bytes = b"", *, leave_out: str = "", **headers: str
    ) -> tuple[HTTPResponse, bytes]:
        """Send one request; `X_Y="z"` sets a header, `leave_out` names one that is not sent.

        What is asked for lies in the space of the server, but for the address that lets in.
        """
        target = target if target.startswith("/?token=") else self.access.space + target
        sent = {"Host": self.host, "Authorization": f"Bearer {self.access.token}"}
        if method == "POST":
            sent |= {"Origin": f"http://{self.host}", "Content-Type": "application/json"}
            sent["Content-Length"] = str(len(body))
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = HTTPConnection("127.0.0.1", self.server.server_port, timeout=30)
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            if name != leave_out:
                connection.putheader(name, value)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer, content

    def get(self, target: str, **headers: Any) -> tuple[int, bytes]:
        answer, content = self.ask("GET", target, **headers)
        return answer.status, content

    def post(self, target: str, message: object, **headers: Any) -> tuple[int, dict[str, Any]]:
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        answer, content = self.ask("POST", target, body, **headers)
        return answer.status, json.loads(content)


@pytest.fixture
def visit() -> Iterator[Callable[[Path], Visitor]]:
    """Serve a folder until the test ends."""
    servers: list[tuple[ViewServer, threading.Thread]] = []

    def start(folder: Path) -> Visitor:
        server = open_server(folder)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        servers.append((server, thread))
        return Visitor(server)

    yield start
    for server, thread in servers:
        server.shutdown()
        server.stop()
        thread.join(10)
