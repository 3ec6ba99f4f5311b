"""`halebrain evaluate` on two folders: what it writes, and one clear line for each bad input."""

import sys

import nibabel
import numpy as np
import pytest

from halebrain.cli.main import main

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["halebrain", "evaluate", *map(str, arguments), "--no-progress"])
        with pytest.raises(SystemExit) as caught:
            main()
        return int(caught.value.code or 0), capsys.readouterr()

    return call


@pytest.fixture
def folders(tmp_path, rng):
    for subject in ("01", "02", "03", "04"):
        truth = np.zeros((16, 16, 12), np.uint8)
        truth[4:9, 5:9, 4:8] = subject != "04"
        save(tmp_path / "truth" / f"sub-{subject}_mask.nii.gz", truth)
        score = (0.4 * truth + 0.6 * rng.random(truth.shape)).astype(np.float32)
        save(tmp_path / "maps" / f"sub-{subject}_map.nii.gz", score)
    return tmp_path


def save(path, data, affine=AFFINE):
    path.parent.mkdir(exist_ok=True)
    image = nibabel.Nifti1Image(data, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    nibabel.save(image, path)


def test_everything_is_written(run, folders):
    out = folders / "out"
    code, said = run(
        "--predictions", folders / "maps", "--references", folders / "truth", "--threshold", 0.6, "-o", out
    )
    assert code == 0
    assert "maps\tmicro_auprc\t" in said.out
    assert {p.name for p in out.iterdir()} == {
        "index.html",
        "scans.tsv",
        "summary.json",
        "summary.md",
        "summary.tex",
        "figures",
    }
    figures = {p.stem for p in (out / "figures").iterdir()}
    assert {"precision_and_recall", "is_the_score_a_probability", "dice_by_lesion_size"} <= figures
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(figures)
    assert "brats2023_lesion_dice" in page


def wrong_grid(folder):
    save(folder / "maps" / "sub-02_map.nii.gz", np.zeros((16, 16, 11), np.float32))
    return 65, "grid of its reference"


def shifted(folder):
    affine = AFFINE.copy()
    affine[1, 3] = 3.0
    save(folder / "maps" / "sub-02_map.nii.gz", np.zeros((16, 16, 12), np.float32), affine)
    return 65, "another affine"


def several_labels(folder):
    save(folder / "truth" / "sub-03_mask.nii.gz", np.arange(16 * 16 * 12).reshape(16, 16, 12).astype(np.uint8) % 4)
    return 65, "--labels"


def missing_pair(folder):
    (folder / "maps" / "sub-02_map.nii.gz").unlink()
    return 66, "sub-02"


def doubled_subject(folder):
    save(folder / "maps" / "sub-02_other.nii.gz", np.zeros((16, 16, 12), np.float32))
    return 65, "one file a scan"


def not_finite(folder):
    save(folder / "maps" / "sub-02_map.nii.gz", np.full((16, 16, 12), np.nan, np.float32))
    return 65, "finite"


def no_nifti(folder):
    (folder / "truth" / "sub-02_mask.nii.gz").write_bytes(b"nothing")
    return 65, "readable NIfTI"


@pytest.mark.parametrize(
    "spoil",
    [wrong_grid, shifted, several_labels, missing_pair, doubled_subject, not_finite, no_nifti],
    ids=lambda f: f.__name__,
)
def test_bad_input_is_one_line(run, folders, spoil):
    code, word = spoil(folders)
    out = folders / "out"
    found, said = run(
        "--predictions", folders / "maps", "--references", folders / "truth", "--threshold", 0.6, "-o", out
    )
    assert found == code
    assert len(said.err.strip().splitlines()) == 1
    assert word in said.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [((), "either MODEL"), (("--predictions", "maps"), "--references"), (("model",), "--manifest")],
)
def test_half_a_question_is_refused(run, folders, monkeypatch, arguments, word):
    monkeypatch.chdir(folders)
    code, said = run(*arguments, "-o", "out")
    assert code == 2
    assert word in said.err
