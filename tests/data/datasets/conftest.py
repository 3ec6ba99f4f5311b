from pathlib import Path

import pytest


@pytest.fixture
def tree(tmp_path):
    """Make empty files below a folder, by their relative names, and return the folder."""

    def make(*names: str, root: str = "dataset") -> Path:
        folder = tmp_path / root
        folder.mkdir(exist_ok=True)
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return folder

    return make
