import pkgutil

import pytest

from halebrain.core.errors import ConfigError, MissingInputError
from halebrain.data import datasets
from halebrain.data.datasets import SOURCES, build_source

PARTS = {"base", "patterns", "people", "published_splits", "tables", "tree"}
"""Modules of the folder that the sources share, and that are none."""
NEEDED = {"folder": {"pattern": "{subject}_T1w.nii.gz", "modality": "T1w"}}


@pytest.fixture(params=SOURCES.names())
def name(request):
    return request.param


@pytest.fixture
def source(name):
    return build_source(name, NEEDED.get(name))


def test_every_module_of_the_folder_is_registered_under_its_own_name():
    modules = {module.name for module in pkgutil.iter_modules(datasets.__path__)}
    assert modules - PARTS == set(SOURCES.names())


def test_the_layout_is_one_line(source):
    assert source.layout
    assert "\n" not in source.layout


def test_a_missing_folder_says_what_was_expected(source, tmp_path):
    with pytest.raises(MissingInputError) as caught:
        source(tmp_path / "none")
    assert source.layout in str(caught.value)


def test_a_folder_of_something_else_is_refused_in_one_line(source, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "sub").mkdir()
    with pytest.raises(MissingInputError) as caught:
        source(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_setting_is_refused(name):
    with pytest.raises(ConfigError, match="known keys only"):
        build_source(name, {**NEEDED.get(name, {}), "nonsense": 1})
