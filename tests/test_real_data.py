"""Real patients through an untrained model: geometry, registration and refusals do not depend on what was learned."""

import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from halebrain.cli.main import main

pytestmark = [pytest.mark.slow, pytest.mark.real_data]

UNET = {"channels": [8, 8], "blocks_per_level": 1, "patch": 4, "norm_groups": 4, "attention_head_channels": 0}
PATIENTS = {
    "ms": "ms_mslub/patient26_MNI/FLAIR_N4_noneck_reduced_winsor_regtoFLAIR_brain_N4_regtoMNI.nii.gz",
    "tumour": "tumour_tcga_lgg_FG-6692/sri24_1mm_bet/OtherEXampleFromTCIA_t2_bet.nii.gz",
    "stroke": "stroke_cstar_nomask/FLAIR.nii.gz",
    "healthy": "healthy_t1_2mm_ds002748/sub-05_space-orig_res-2mm_desc-brain_T1w.nii.gz",
}


def detect(monkeypatch: pytest.MonkeyPatch, image: Path, out: Path, model: Path, *more: str) -> int:
    arguments = ["-i", image, "-o", out, "--model", model, "--threshold", "0.3", "--device", "cpu", "--no-progress"]
    monkeypatch.setattr(sys, "argv", ["halebrain", "detect", *map(str, arguments), *more])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


@pytest.mark.parametrize(
    "patient",
    [
        "ms",
        "tumour",
        *(pytest.param(name, marks=pytest.mark.sweep) for name in PATIENTS if name not in ("ms", "tumour")),
    ],
)
def test_a_real_patient(
    real_data: Path, untrained_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patient: str
) -> None:
    image = real_data / PATIENTS[patient]
    assert detect(monkeypatch, image, tmp_path, untrained_model) == 0
    native = nibabel.load(image)
    maps = sorted(tmp_path.glob("*.nii.gz"))
    assert len(maps) == 7
    for path in maps:
        found = nibabel.load(path)
        assert found.shape == native.shape[:3], path.name
        np.testing.assert_allclose(found.affine, native.affine, atol=1e-3)
        assert np.isfinite(np.asarray(found.dataobj)).all(), path.name
    qc = json.loads(next(tmp_path.glob("*provenance.json")).read_text())["qc"]
    assert qc["registration_failed"] is False
    assert qc["registration_mask_dice"] > 0.85
    assert 900 < qc["brain_volume_ml"] < 2000


def test_a_whole_head_is_stripped(
    real_data: Path,
    untrained_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = real_data / "healthy_wholehead_t1_t2_ds000011" / "sub-01_T1w.nii.gz"
    assert detect(monkeypatch, image, tmp_path, untrained_model) == 0
    assert "skull stripped by registration" in capsys.readouterr().err
    qc = json.loads(next(tmp_path.glob("*provenance.json")).read_text())["qc"]
    assert qc["brain_method"] == "atlas"
    assert 1100 < qc["brain_volume_ml"] < 1800
    assert qc["registration_mask_dice"] > 0.93


def test_a_whole_head_is_refused_where_a_stripped_one_is_said_to_come(
    real_data: Path,
    untrained_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = real_data / "healthy_wholehead_t1_t2_ds000011" / "sub-01_T1w.nii.gz"
    assert detect(monkeypatch, image, tmp_path / "out", untrained_model, "--brain", "stripped") == 65
    assert "skull-stripped" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
