"""The folds of the claim: who tests has an anatomy that nobody who trains has, and folds share neither."""

from collections import Counter

import numpy as np
import pytest
from benchmarks.claim_cohorts import Sizes, make_folds

from halebrain.io.manifest import Manifest
from halebrain.simulation.anatomy import template_tissues
from halebrain.simulation.config import grid_shape
from halebrain.simulation.generate import PARAMETERS
from halebrain.simulation.subject import SubjectParams

SMALL = Sizes(4, 4, 3, 3, spacing_mm=4.0, pathologies=("ms",), modalities=("T1w",))


@pytest.mark.slow
def test_test_brains_are_made_of_anatomies_that_no_training_saw(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    names = [f"labels-{letter}" for letter in "abcd"]
    for name in names:
        np.savez(kept / f"{name}.npz", tissues=template_tissues(grid_shape(4.0), 4.0).astype(np.float16))
    tables = make_folds(tmp_path, kept, names, SMALL)
    assert [path.name for path in tables] == ["fold0.tsv", "fold1.tsv"]
    bases, people = [], []
    for path in tables:
        fold = Manifest.read(path)
        counts = Counter((record.split, record.condition) for record in fold)
        assert counts == {
            ("train", "healthy"): 3,
            ("val", "healthy"): 1,
            ("train", "ms"): 3,
            ("val", "ms"): 1,
            ("test", "healthy"): 3,
            ("test", "ms"): 3,
        }
        seen = {}
        for record in fold:
            folder = next(p for p in record.image.parents if p.name == f"sub-{record.subject}")
            params = SubjectParams.model_validate_json((folder / PARAMETERS).read_text())
            seen.setdefault(record.split, set()).add(params.anatomy.base)
        assert seen["train"] == seen["val"] == {None}
        assert None not in seen["test"]
        bases.append(seen["test"])
        people.append(set(fold.subjects()))
    assert bases[0] <= set(names[0::2])
    assert bases[1] <= set(names[1::2])
    assert not people[0] & people[1]
    with pytest.raises(SystemExit, match="an anatomy of its own"):
        make_folds(tmp_path / "few", kept, names[:1], SMALL)
