from pathlib import Path

import pytest

from halebrain.core.device import find_device
from halebrain.core.errors import MissingInputError, UnavailableError, UsageError
from halebrain.core.shipped_configs import find_config


@pytest.mark.parametrize("kind", ["reconstructor", "segmenter"])
@pytest.mark.parametrize("name", ["tiny", "demo", "paper"])
def test_a_shipped_name_is_found_even_where_a_folder_has_it(tmp_path, monkeypatch, kind, name):
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    found = find_config(Path(name), kind)
    assert found is not None
    assert found.name == f"{kind}_{name}.yaml"
    assert found.is_file()


def test_a_file_of_the_user_goes_before_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("demo").write_text("seed: 1\n")
    assert find_config(Path("demo"), "segmenter") == Path("demo")
    assert find_config(Path("mine.yaml"), "segmenter") == Path("mine.yaml")
    assert find_config(None, "segmenter") is None


def test_a_name_that_is_none_offers_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingInputError, match="did you mean 'paper'"):
        find_config(Path("papr"), "reconstructor")
    with pytest.raises(MissingInputError, match="known: cpu, gpu, paper, tiny"):
        find_config(Path("nonsense"), "matrix")


def test_devices_are_checked():
    assert find_device("cpu").type == "cpu"
    with pytest.raises(UsageError, match="'gpu'"):
        find_device("gpu")
    with pytest.raises(UnavailableError, match="cuda:99"):
        find_device("cuda:99")
