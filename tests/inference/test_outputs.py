"""Names of the outputs, and that a detection is on disk whole or not at all."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import stated
from halebrain.core.about import versions
from halebrain.core.errors import CannotWriteError
from halebrain.core.types import ScanResult
from halebrain.inference import outputs
from halebrain.inference.lesions import lesion_table
from halebrain.inference.outputs import OutputNames, as_written, write_detection
from halebrain.io.checksum import file_sha256
from halebrain.io.volume import read_map, stem_of

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def result() -> ScanResult:
    rng = np.random.default_rng(0)
    shape = (9, 10, 11)
    score, probability, reconstruction, _, residual, uncertainty = (
        rng.random(shape).astype(np.float32) for _ in range(6)
    )
    brain = np.ones(shape, dtype=bool)
    return ScanResult(score, probability, 900 * reconstruction, residual - 0.5, uncertainty, brain, AFFINE)


def write(names: OutputNames, threads: int = 1, **provenance: Any) -> list[Path]:
    found = result()
    mask = found.score > 0.9
    lesions = lesion_table(mask, found.score, AFFINE, np.eye(4))
    made = stated.provenance(**({"seed": 1} | provenance))
    return write_detection(names, found, mask, lesions, made, lambda: {names.mosaic: b"png"}, threads=threads)


def test_a_score_as_written_is_what_its_file_gives_back(tmp_path: Path) -> None:
    found = result()
    found.score[:, :, 0] = 0
    score = as_written(found.score)
    names = OutputNames(tmp_path, "sub-01_FLAIR")
    for written in (found.score, score):
        write_detection(names, replace(found, score=written), written > 0.9, [], stated.provenance(seed=1), lambda: {})
        np.testing.assert_array_equal(read_map(names.file("anomaly", "probseg")).data, score)
    assert np.abs(score - found.score).max() < 1 / 65535


@pytest.mark.parametrize(
    ("stem", "mask", "reconstruction", "provenance"),
    [
        (
            "sub-01_FLAIR",
            "sub-01_rec-FLAIR_desc-anomaly_mask.nii.gz",
            "sub-01_desc-pseudohealthy_FLAIR.nii.gz",
            "sub-01_rec-FLAIR_desc-anomaly_provenance.json",
        ),
        (
            "sub-01_ses-2_T1w",
            "sub-01_ses-2_rec-T1w_desc-anomaly_mask.nii.gz",
            "sub-01_ses-2_desc-pseudohealthy_T1w.nii.gz",
            "sub-01_ses-2_rec-T1w_desc-anomaly_provenance.json",
        ),
        (
            "scan 7",
            "scan 7_desc-anomaly_mask.nii.gz",
            "scan 7_desc-pseudohealthy_image.nii.gz",
            "scan 7_desc-anomaly_provenance.json",
        ),
    ],
)
def test_names(tmp_path: Path, stem: str, mask: str, reconstruction: str, provenance: str) -> None:
    names = OutputNames(tmp_path, stem)
    assert names.file("anomaly", "mask") == tmp_path / mask
    assert names.file("pseudohealthy", "") == tmp_path / reconstruction
    assert names.provenance == tmp_path / provenance
    assert names.mosaic.suffix == ".png"


@pytest.mark.parametrize("name", ["a.b.nii", "a.b.nii.gz"])
def test_stem(name: str) -> None:
    assert stem_of(Path("x") / name) == "a.b"


def test_two_modalities_share_a_folder_without_a_clash(tmp_path: Path) -> None:
    first = write(OutputNames(tmp_path, "sub-01_FLAIR"))
    second = write(OutputNames(tmp_path, "sub-01_T2w"))
    assert not set(first) & set(second)
    assert len(list(tmp_path.iterdir())) == len(first) + len(second) == 36


def test_what_is_written(tmp_path: Path) -> None:
    names = OutputNames(tmp_path / "new", "sub-01_FLAIR")
    paths = write(names)
    assert sorted(paths) == sorted((tmp_path / "new").iterdir())
    expected = result()
    score = nibabel.load(names.file("anomaly", "probseg"))
    np.testing.assert_allclose(np.asarray(score.dataobj), expected.score, atol=1 / 65535)
    np.testing.assert_allclose(score.affine, AFFINE)
    mask = nibabel.load(names.file("anomaly", "mask"))
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(mask.dataobj), expected.score > 0.9)
    for name, values in (("pseudohealthy", expected.reconstruction), ("residual", expected.residual)):
        np.testing.assert_allclose(np.asarray(nibabel.load(names.file(name, "")).dataobj), values, rtol=1e-6)
    assert json.loads(names.provenance.read_text()) == {"seed": 1}
    assert names.mosaic.read_bytes() == b"png"
    assert names.file("anomaly", "lesions", ".tsv").read_text().startswith("lesion\tvolume_ml")


def test_the_same_result_gives_the_same_bytes_in_any_number_of_threads(tmp_path: Path) -> None:
    alone, together = (write(OutputNames(tmp_path / f"{n}", "s"), threads=n) for n in (1, 3))
    for one, two in zip(alone, together, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("fails_at", [1, 3, 7])
def test_a_failed_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int, threads: int
) -> None:
    real, calls = outputs.write_volume, []

    def failing(*args: Any, **kwargs: Any) -> None:
        calls.append(args)
        if len(calls) == fails_at:
            raise OSError("disk full")
        real(*args, **kwargs)

    monkeypatch.setattr(outputs, "write_volume", failing)
    with pytest.raises(OSError, match="disk full"):
        write(OutputNames(tmp_path, "s"), threads=threads)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rewrite_leaves_the_old_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = OutputNames(tmp_path, "s")
    before = {path: path.read_bytes() for path in write(names)}

    def failing(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(outputs, "write_volume", failing)
    with pytest.raises(OSError, match="disk full"):
        write(names, seed=2)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_provenance_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = OutputNames(tmp_path, "a_scan")
    real, moved = Path.replace, []

    def recording(self: Path, target: Path) -> Path:
        if Path(target).parent == tmp_path:
            moved.append(Path(target))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", recording)
    paths = write(names)
    assert moved == paths
    assert moved[-1] == names.provenance
    assert moved.count(names.provenance) == 1
    assert len(moved) == 18


def test_a_folder_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWriteError) as caught:
        write(OutputNames(tmp_path / "file" / "x", "s"))
    assert caught.value.exit_code == 73


def test_sha256_and_versions(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert file_sha256(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()
    assert set(versions()) == {"halebrain", "torch", "numpy", "python"}
