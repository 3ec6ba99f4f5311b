"""The page of all scans, when several runs into one folder end at the same time."""

import threading
from pathlib import Path

import pytest

from halebrain.core.files import file_lock
from halebrain.io.failed_table import FAILED, read_failed
from halebrain.report.index_page import INDEX
from halebrain.workflows.pages import store_failures, write_index


def test_a_run_waits_for_another_and_forgets_none_of_its_failures(tmp_path: Path) -> None:
    output, recorded = tmp_path / "out", {"c": "before it was mended"}
    output.mkdir()

    def write() -> None:
        write_index(output, ("b",), {"b": "too dark"}, recorded=lambda folder: dict(recorded))

    second = threading.Thread(target=write)
    with file_lock(output / INDEX):
        second.start()
        second.join(timeout=0.5)
        assert second.is_alive()
        assert not (output / INDEX).exists()
        # The first run says now what failed in it, and mends what had failed before.
        (output / FAILED).write_text("scan\treason\na\tno brain\n", encoding="utf-8")
        recorded.clear()
    second.join(timeout=60)
    assert not second.is_alive()
    assert read_failed(output / FAILED) == {"a": "no brain", "b": "too dark"}
    assert sorted(path.name for path in output.iterdir()) == [FAILED, INDEX]


@pytest.mark.parametrize("quiet", [False, True])
def test_a_lock_that_somebody_left_behind_costs_no_result(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, quiet: bool
) -> None:
    told: list[str] = []
    channel = {"notify": told.append} if quiet else {}
    with file_lock(tmp_path / INDEX):
        write_index(tmp_path, (), {"a": "no brain"}, wait_s=0.1, **channel)
    assert read_failed(tmp_path / FAILED) == {"a": "no brain"}
    assert (tmp_path / INDEX).is_file()
    # A caller who gives a channel gets the warning there and nowhere else; without one it is logged.
    logged = [record.getMessage() for record in caplog.records if record.name == "halebrain"]
    (said,) = told if quiet else logged
    assert not (logged if quiet else told)
    assert said.startswith(f"warning: {INDEX} is written")
    assert "remove that file" in said


def test_runs_without_a_page_keep_the_failures_of_each_other(tmp_path: Path) -> None:
    output = tmp_path / "out"
    store_failures(output, ("a", "b"), {"a": "no brain"})
    store_failures(output, ("c", "d"), {"c": "too dark"})
    assert read_failed(output / FAILED) == {"a": "no brain", "c": "too dark"}
    store_failures(output, ("a",), {})
    assert read_failed(output / FAILED) == {"c": "too dark"}
    told: list[str] = []
    with file_lock(output / INDEX):
        store_failures(output, ("c",), {}, wait_s=0.1, notify=told.append)
    assert told[0].startswith(f"warning: {FAILED} is written without the lock")
    assert [path.name for path in output.iterdir()] == [FAILED]
