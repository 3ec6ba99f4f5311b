"""`halebrain view`: the address, the browser, the end."""

import re
import signal
import socket
import subprocess
import sys
import threading
import webbrowser
from http.client import HTTPConnection

import pytest

from halebrain.cli.view import open_server
from halebrain.view.server import ViewServer

PROVENANCE = "a_desc-anomaly_provenance.json"


@pytest.fixture
def folder(tmp_path):
    """The least that can be shown: a provenance and its page."""
    (tmp_path / PROVENANCE).write_text('{"scan": "a"}')
    (tmp_path / "a_desc-anomaly_report.html").write_text("<body></body>")
    return tmp_path


@pytest.fixture
def interrupted(monkeypatch):
    """End the service at once, as Ctrl-C does."""

    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(ViewServer, "serve_forever", stop)


def test_it_prints_the_address_opens_the_browser_and_ends(folder, command, interrupted, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    code, said = command("view", folder)
    assert code == 0
    address = r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}"
    assert re.fullmatch(address, said.out.strip())
    assert re.fullmatch(address, opened[0])
    assert opened[0] != said.out.strip()  # what a browser is started with is good once
    assert "stopped" in said.err


def test_without_a_browser(folder, command, interrupted, monkeypatch):
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    assert "open the address" in command("view", folder)[1].err
    monkeypatch.setattr(webbrowser, "open", None)
    assert command("view", folder, "--no-browser")[0] == 0


def test_what_cannot_be_shown_or_served_is_said(folder, tmp_path, command):
    assert command("view", tmp_path / "none", "--no-browser")[0] == 66
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = command("view", folder, "--no-browser", "--port", taken.getsockname()[1])
    assert code == 69
    assert "--port" in said.err
    assert command("view", folder, "--port", 65536)[0] == 2


def test_what_is_being_written_is_finished_first(folder):
    server = open_server(folder)
    ended = threading.Thread(target=server.stop)
    with server.visit.lock:
        ended.start()
        ended.join(0.2)
        assert ended.is_alive()
        assert server.fileno() >= 0
    ended.join(30)
    assert server.fileno() == -1


@pytest.mark.slow
def test_ctrl_c_ends_a_running_service(folder):
    run = [sys.executable, "-c", "from halebrain.cli.main import main; main()", "view", str(folder), "--no-browser"]
    # A shell's background job ignores SIGINT, and its children with it: here it must count.
    process = subprocess.Popen(
        run,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        address = process.stdout.readline().strip()
        port = int(re.search(r":(\d+)/", address)[1])
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", address.partition(str(port))[2])
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert said.splitlines()[-1] == "halebrain: stopped"
    assert "Traceback" not in said
