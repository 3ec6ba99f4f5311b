"""`halebrain detect --fill`: the filled scan alone, from what is found or from a mask; resumed, refused, stated."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import halebrain
from halebrain.core.errors import CannotWriteError
from halebrain.inference.scans import ScanInput
from halebrain.io.failed_table import FAILED, read_failed
from halebrain.io.manifest import Manifest
from halebrain.thresholds.calibration import Calibration, Threshold
from halebrain.thresholds.choose import ThresholdSelector
from halebrain.workflows.detector import load_detector
from halebrain.workflows.fill import fill_scan
from halebrain.workflows.settings import DetectSettings

Command = Callable[..., tuple[int, Any]]
HOW = ("--threshold", "0.05", "--device", "cpu", "--no-progress")


@pytest.fixture
def patient(small_cohort: Callable[..., Path]) -> tuple[Path, Path]:
    """A scan of whole numbers with its lesion mask."""
    record = next(iter(Manifest.read(small_cohort([("p", "FLAIR", "test", "ms")]))))
    image = nibabel.load(record.image)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj).astype(np.int16), image.affine), record.image)
    assert record.lesion is not None
    return record.image, record.lesion


def raw(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(nibabel.load(path).dataobj.get_unscaled())


def test_a_mask_is_filled_and_written_alone(
    bundled: Path, command: Command, patient: tuple[Path, Path], tmp_path: Path
) -> None:
    (scan, mask), out = patient, tmp_path / "out"
    options = ("detect", "-i", scan, "-o", out, *HOW, "--fill", "--fill-mask", mask)
    code, said = command(*options, "--json")
    assert code == 0, said.err
    filled, sidecar = out / "sub-p_desc-filled_FLAIR.nii.gz", out / "sub-p_desc-filled_FLAIR.json"
    assert sorted(out.iterdir()) == [sidecar, filled]
    stated = json.loads(sidecar.read_text())
    assert (stated["FilledMask"], stated["FillMarginMm"], stated["SkullStripped"]) == ("given", 2.0, True)
    lesion = raw(mask) > 0
    assert stated["MaskVolumeMl"] == pytest.approx(lesion.sum() * 0.125)
    assert stated["Notice"].startswith("Research use only")
    before, after = raw(scan), raw(filled)
    assert after.dtype == before.dtype
    np.testing.assert_array_equal(after[~lesion], before[~lesion])  # 2 mm reach no further voxel of 5 mm
    assert (after[lesion] != before[lesion]).mean() > 0.8
    (one,) = json.loads(said.out)["scans"]
    assert one["filled"] == str(filled)
    assert one["filled_ml"] == stated["FilledVolumeMl"] == pytest.approx(lesion.sum() * 0.125)

    # Finished with the same settings: kept. With others: refused.
    stamp = filled.stat().st_mtime_ns
    assert command(*options)[0] == 0
    assert filled.stat().st_mtime_ns == stamp
    code, said = command(*options, "--fill-margin-mm", 6)
    assert (code, "made with other settings exist, got another fill margin mm" in said.err) == (73, True)
    code, said = command(*options, "--precision", "bf16")
    assert (code, "got another precision" in said.err) == (73, True)
    # An older version stated less.
    older = json.loads(sidecar.read_text())
    del older["Requested"]["precision"], older["Requested"]["calibration"]
    sidecar.write_text(json.dumps(older))
    assert command(*options)[0] == 0
    assert command(*options, "--fill-margin-mm", 6, "--overwrite")[0] == 0
    assert json.loads(sidecar.read_text())["FilledVolumeMl"] > stated["FilledVolumeMl"]


def test_another_calibration_is_not_taken_for_the_former_one(
    small_model: Path, patient: tuple[Path, Path], tmp_path: Path
) -> None:
    scan, settings = ScanInput(patient[0], "p"), DetectSettings(model=small_model, device="cpu", fill=True)
    detector = load_detector(replace(settings, threshold="0.3"))
    about: dict[str, Any] = {"method": "", "split": "val", "manifest_sha256": "", "n_scans": 1, "achieved": 1.0}
    stored = [{"ml:1": Threshold(value=value, **about)} for value in (0.3, 0.4)]
    selectors = [ThresholdSelector(Calibration(default="ml:1", thresholds=own, subjects=())) for own in stored]
    calibrated = [replace(detector, settings=settings, selector=selector) for selector in selectors]
    fill_scan(calibrated[0], scan, tmp_path)
    fill_scan(calibrated[0], scan, tmp_path)
    with pytest.raises(CannotWriteError, match="another calibration"):
        fill_scan(calibrated[1], scan, tmp_path)


@pytest.mark.slow
def test_a_detection_in_the_folder_of_a_scan_filled_alone_keeps_it(
    small_model: Path, command: Command, patient: tuple[Path, Path], tmp_path: Path
) -> None:
    (scan, mask), out = patient, tmp_path / "out"
    detect = ("detect", "-i", scan, "-o", out, "-m", small_model, *HOW)
    assert command(*detect, "--fill", "--fill-mask", mask)[0] == 0
    files = {path: path.read_bytes() for path in out.iterdir()}
    assert len(files) == 2
    assert command(*detect)[0] == 0
    assert command("report", out, "--threshold", "0.2", "--no-progress")[0] == 0
    assert {path: path.read_bytes() for path in files if path.exists()} == files


def test_a_calibration_that_decides_nothing_of_what_is_filled_keeps_it(
    small_model: Path, patient: tuple[Path, Path], tmp_path: Path
) -> None:
    about: dict[str, Any] = {"method": "", "split": "val", "manifest_sha256": "", "n_scans": 1, "achieved": 1.0}
    one, other = (Threshold(value=value, **about) for value in (0.3, 0.4))
    selectors = [
        ThresholdSelector(Calibration(default="ml:1", thresholds=own, subjects=()))
        for own in ({"ml:1": one}, {"ml:1": one, "ml:1@site": other}, {"ml:1": other})
    ]
    settings = DetectSettings(model=small_model, device="cpu", fill=True)
    detector = load_detector(replace(settings, threshold="0.3"))
    first, named, changed = (replace(detector, settings=settings, selector=selector) for selector in selectors)
    found, given = ScanInput(patient[0], "p"), ScanInput(patient[0], "p", fill_mask=patient[1])
    fill_scan(first, found, tmp_path / "found")
    fill_scan(named, found, tmp_path / "found")
    fill_scan(first, given, tmp_path / "given")
    fill_scan(changed, given, tmp_path / "given")


def test_a_part_keeps_the_failures_of_the_others(
    bundled: Path, command: Command, patient: tuple[Path, Path], tmp_path: Path
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for name in ("a", "b"):
        (scans / f"{name}_FLAIR.nii.gz").write_bytes(b"no gzip at all")
    about = ("detect", "-i", scans, "-o", out, *HOW, "--fill", "--num-parts", 2)
    for part in (0, 1):
        assert command(*about, "--part-id", part)[0] == 3
    assert set(read_failed(out / FAILED)) == {"a_FLAIR", "b_FLAIR"}
    shutil.copy(patient[0], scans / "a_FLAIR.nii.gz")
    assert command(*about, "--part-id", 0)[0] == 0
    assert set(read_failed(out / FAILED)) == {"b_FLAIR"}


def test_nothing_found_is_said_and_gives_the_scan(
    bundled: Path, command: Command, patient: tuple[Path, Path], tmp_path: Path
) -> None:
    scan, out = patient[0], tmp_path / "out"
    code, said = command("detect", "-i", scan, "-o", out, *HOW, "--fill", "--min-lesion-mm3", 1e9)
    assert code == 0, said.err
    assert "nothing was found: the filled scan is the scan itself" in said.err
    np.testing.assert_array_equal(raw(out / "sub-p_desc-filled_FLAIR.nii.gz"), raw(scan))
    assert json.loads((out / "sub-p_desc-filled_FLAIR.json").read_text())["FilledVolumeMl"] == 0


def test_a_mask_that_fills_nothing_or_nearly_all_is_told(
    bundled: Path, command: Command, patient: tuple[Path, Path], tmp_path: Path
) -> None:
    scan, image = patient[0], nibabel.load(patient[0])
    brain = np.asarray(image.dataobj) > 0
    for name, mask, said in (
        ("empty", np.zeros_like(brain), "the mask to fill is empty: the filled scan is the scan itself"),
        ("outside", ~brain & (np.indices(brain.shape)[0] == 0), "nothing of the mask lies in the brain"),
        ("brain", brain, "of the brain was filled: check that the mask is one of lesions"),
    ):
        path = tmp_path / f"{name}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), image.affine), path)
        code, printed = command(
            "detect", "-i", scan, "-o", tmp_path / name, *HOW, "--fill", "--fill-mask", path, "--fill-margin-mm", 0
        )
        assert code == 0, printed.err
        assert "warning: sub-p_FLAIR: " in printed.err
        assert said in printed.err


@pytest.mark.slow
def test_beside_the_other_files_and_in_python_it_is_the_same(
    bundled: Path, command: Command, patient: tuple[Path, Path], tmp_path: Path
) -> None:
    (scan, mask), alone, beside = patient, tmp_path / "alone", tmp_path / "beside"
    given = ("--fill-mask", mask)
    assert command("detect", "-i", scan, "-o", alone, *HOW, "--fill", *given)[0] == 0
    assert command("detect", "-i", scan, "-o", beside, *HOW, "--also-fill", *given)[0] == 0
    name = "sub-p_desc-filled_FLAIR.nii.gz"
    assert (alone / name).read_bytes() == (beside / name).read_bytes()
    found = halebrain.detect(scan, threshold=0.05, device="cpu", fill=True, fill_mask=nibabel.load(mask))
    assert found.filled is not None
    np.testing.assert_array_equal(np.asarray(found.filled.dataobj), raw(alone / name))
    saved = found.save(tmp_path / "saved")
    assert saved.filled is not None
    assert saved.filled.read_bytes() == (alone / name).read_bytes()
    # A result without the filled scan is none with it. A new threshold removes the filled scan of the old mask.
    plain = tmp_path / "plain"
    assert command("detect", "-i", scan, "-o", plain, *HOW)[0] == 0
    assert command("detect", "-i", scan, "-o", plain, *HOW, "--also-fill")[0] == 73
    assert command("detect", "-i", scan, "-o", tmp_path / "again", *HOW, "--also-fill")[0] == 0
    for folder, is_given in ((beside, True), (tmp_path / "again", False)):
        code, printed = command("report", folder, "--threshold", "0.2", "--no-progress")
        assert code == 0, printed.err
        sidecar = (folder / name).with_name("sub-p_desc-filled_FLAIR.json")
        assert ((folder / name).exists(), sidecar.exists()) == (is_given, is_given)
        assert ("the lesion-filled scan of the old mask was removed" in printed.err) != is_given
        made = json.loads(next(folder.glob("*_provenance.json")).read_text())
        assert ("filled_ml" in made) == is_given
    assert (beside / name).read_bytes() == (alone / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "code", "rule"),
    [
        (("--fill-mask", "MASK"), 2, "--fill-mask needs --fill or --also-fill"),
        (("--fill-margin-mm", "3"), 2, "--fill-margin-mm needs --fill or --also-fill, got 3 with neither"),
        (("--fill", "--also-fill"), 2, "--fill and --also-fill exclude each other"),
        (("--fill", "--fill-mask", "SHIFTED"), 65, "a mask must lie on the grid of its scan"),
    ],
)
def test_refusals(
    bundled: Path,
    command: Command,
    patient: tuple[Path, Path],
    tmp_path: Path,
    options: tuple[str, ...],
    code: int,
    rule: str,
) -> None:
    scan, mask = patient
    shifted = tmp_path / "shifted.nii.gz"
    image = nibabel.load(mask)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine + np.eye(4)), shifted)
    files = {"MASK": mask, "SHIFTED": shifted}
    found, said = command("detect", "-i", scan, "-o", tmp_path / "out", *HOW, *(files.get(one, one) for one in options))
    assert (found, rule in said.err) == (code, True), said.err
