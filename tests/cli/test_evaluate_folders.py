"""`halebrain evaluate` on two folders: what it writes, and one clear line for each bad input."""

import gzip
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


@pytest.mark.slow
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
    assert {
        "precision_and_recall",
        "is_the_score_a_probability",
        "lesions_found_against_false_ones",
        "dice_by_lesion_size",
    } <= figures
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(figures)
    assert "brats2023_lesion_dice" in page


def wrong_grid(folder):
    save(folder / "maps" / "sub-02_map.nii.gz", np.zeros((16, 16, 11), np.float32))
    return 3, "grid of its reference"


def shifted(folder):
    affine = AFFINE.copy()
    affine[1, 3] = 3.0
    save(folder / "maps" / "sub-02_map.nii.gz", np.zeros((16, 16, 12), np.float32), affine)
    return 3, "another affine"


def several_labels(folder):
    save(folder / "truth" / "sub-03_mask.nii.gz", np.arange(16 * 16 * 12).reshape(16, 16, 12).astype(np.uint8) % 4)
    return 3, "--labels"


def missing_pair(folder):
    (folder / "maps" / "sub-02_map.nii.gz").unlink()
    return 66, "sub-02"


def doubled_subject(folder):
    save(folder / "maps" / "sub-02_other.nii.gz", np.zeros((16, 16, 12), np.float32))
    return 65, "one file per scan"


def not_finite(folder):
    save(folder / "maps" / "sub-02_map.nii.gz", np.full((16, 16, 12), np.nan, np.float32))
    return 3, "finite"


def no_nifti(folder):
    (folder / "truth" / "sub-02_mask.nii.gz").write_bytes(b"nothing")
    return 3, "readable NIfTI"


def garbage(folder):
    (folder / "maps" / "sub-01_map.nii.gz").write_bytes(b"nothing")
    return 3, "readable NIfTI"


def no_size(folder):
    affine = np.diag([2e-4, 2e-4, 2e-4, 1])
    save(folder / "truth" / "sub-02_mask.nii.gz", np.zeros((16, 16, 12), np.uint8), affine)
    return 3, "0.0032 x 0.0032 x 0.0024 mm"


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "spoil",
    [wrong_grid, shifted, several_labels, missing_pair, doubled_subject, not_finite, no_nifti, garbage, no_size],
    ids=lambda f: f.__name__,
)
def test_bad_input_is_one_line_and_fails_alone(run, folders, spoil):
    code, word = spoil(folders)
    out = folders / "out"
    found, said = run(
        "--predictions", folders / "maps", "--references", folders / "truth", "--threshold", 0.6, "-o", out
    )
    assert found == code
    lines = said.err.strip().splitlines()
    assert all(line.startswith("halebrain: ") for line in lines)
    assert sum(word in line for line in lines) == 1
    if code != 3:  # the folders do not belong together
        assert len(lines) == 1
        assert not out.exists()
        return
    scored = {line.split("\t")[0] for line in (out / "scans.tsv").read_text().splitlines()[1:]}
    assert len(scored) == 3
    assert "1 of 4 that failed" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [((), "either MODEL"), (("--predictions", "maps"), "--references"), (("model",), "--manifest")],
)
def test_half_a_question_is_refused(run, folders, monkeypatch, arguments, word):
    monkeypatch.chdir(folders)
    code, said = run(*arguments, "-o", "out")
    assert code == 2
    assert word in said.err


def masks(folder):
    for path in (folder / "maps").iterdir():
        data = np.asarray(nibabel.load(path).dataobj)
        save(path, (data > 0.6).astype(np.float32))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--split", "val"), "--split"),
        (("--grid", "native"), "--grid"),
        (("--min-lesion-mm3", 5), "--min-lesion-mm3"),
        (("--modality", "FLAIR"), "--modality"),
        (("--baselines",), "--baselines"),
        (("--device", "cpu"), "--device"),
    ],
)
def test_an_option_of_models_is_refused_for_folders(run, folders, arguments, word):
    how = ("--predictions", folders / "maps", "--references", folders / "truth", "-o", folders / "out")
    code, said = run(*how, *arguments)
    assert (code, said.err.count("\n")) == (2, 1)
    assert f"{word} needs a model and cannot be used with --predictions" in said.err


@pytest.mark.parametrize("option", ["--labels", "--references", "--brain-masks"])
def test_an_option_of_folders_is_refused_for_models(run, folders, option):
    code, said = run("model", "--manifest", folders / "m.tsv", option, "1", "-o", folders / "out")
    assert (code, said.err.count("\n")) == (2, 1)
    assert f"{option} needs --predictions" in said.err


@pytest.mark.usefixtures("undrawn")
def test_a_grid_beside_a_protocol_is_refused(run, folders):
    how = ("model", "--manifest", folders / "m.tsv", "-o", folders / "out", "--protocol", "behrendt2024")
    code, said = run(*how, "--grid", "native")
    assert code == 2
    assert "--grid has no effect with --protocol" in said.err


@pytest.mark.slow
def test_a_threshold_for_masks_is_refused_and_masks_are_said(run, folders):
    masks(folders)
    how = ("--predictions", folders / "maps", "--references", folders / "truth", "-o", folders / "out")
    code, said = run(*how, "--threshold", 0.5)
    assert (code, said.err.count("\n")) == (2, 1)
    assert "--threshold needs anomaly maps, got predictions that are masks" in said.err
    code, said = run(*how)
    assert code == 0
    assert "halebrain: predictions are read as masks (values beside 0: 1)" in said.err
    assert "predictions are read as masks" in (folders / "out" / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_names_and_packing_that_disagree_change_nothing(run, folders):
    how = ("--predictions", folders / "maps", "--references", folders / "truth", "--threshold", 0.6)
    assert run(*how, "-o", folders / "one")[0] == 0
    path = folders / "maps" / "sub-02_map.nii.gz"
    path.write_bytes(gzip.decompress(path.read_bytes()))  # a plain NIfTI that is called .nii.gz
    path = folders / "truth" / "sub-02_mask.nii.gz"
    path.rename(path.with_name("sub-02_mask.nii"))  # a packed one that is called .nii
    path = folders / "maps" / "sub-03_map.nii.gz"
    image = nibabel.load(path)
    nibabel.save(nibabel.MGHImage(np.asarray(image.dataobj), image.affine), path.with_name("sub-03_map.mgz"))
    path.unlink()
    assert run(*how, "-o", folders / "two")[0] == 0
    tables = [(folders / name / "scans.tsv").read_text() for name in ("one", "two")]
    assert tables[0] == tables[1]
