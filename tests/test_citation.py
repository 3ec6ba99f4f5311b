"""`CITATION.cff` is valid and names the version that there is."""

from pathlib import Path

import pytest
import yaml

import halebrain

CITATION = Path(__file__).parents[1] / "CITATION.cff"


def test_the_version_is_that_of_the_package():
    assert yaml.safe_load(CITATION.read_text(encoding="utf-8"))["version"] == halebrain.__version__


def test_it_follows_the_citation_file_format():
    cffconvert = pytest.importorskip("cffconvert", reason="cffconvert is not installed: pip install -e '.[dev]'")
    citation = cffconvert.Citation(CITATION.read_text(encoding="utf-8"))
    citation.validate()
    assert "The HaleBrain developers" in citation.as_bibtex()
