"""`halebrain prepare`: what it leaves, what it keeps, and what it does not let spoil the rest."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from halebrain.cli.main import main
from halebrain.cli.prepare import _next_step
from halebrain.core.config import load_config
from halebrain.core.errors import CannotWriteError, DataError, UsageError
from halebrain.core.modality import guess_modality
from halebrain.core.shipped_configs import shipped_configs
from halebrain.core.types import TEMPLATE_SPACE
from halebrain.data.naming import records_of
from halebrain.data.prepare import PrepareTask, prepare_scan
from halebrain.data.prepared_set import read_entries
from halebrain.data.slices import build_store
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.nifti import write_volume
from halebrain.io.volume import read_array, read_volume
from halebrain.preprocessing.pipeline import PreprocessingConfig
from halebrain.preprocessing.prepared import prepared_files
from halebrain.training.reconstructor import ReconstructorTraining
from halebrain.workflows.prepare import read_preprocessing

SETTINGS = {"shape": [24, 28, 24], "spacing_mm": 8.0, "registration": "none", "bias_correction": "none"}
CONFIG = PreprocessingConfig.model_validate(SETTINGS)
OPTIONS = [f"--set={name}={value}" for name, value in SETTINGS.items()]


def write_head(path, *, seed=0, lesion=None):
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 48, 40)), indexing="ij")
    inside = i**2 + j**2 + k**2 < 0.8
    texture = np.random.default_rng(seed).uniform(0, 20, inside.shape)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = [-80, -110, -75]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, np.where(inside, 100 + 40 * i + texture, 0).astype(np.float32), affine)
    if lesion is not None:
        write_volume(lesion, (inside & (i > 0.3) & (j > 0.3)).astype(np.uint8), affine, dtype=np.uint8)
    return path


@pytest.fixture
def raw(tmp_path):
    for number in range(5):
        write_head(tmp_path / "raw" / f"case{number}_T1w.nii.gz", seed=number)
    return tmp_path / "raw"


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["halebrain", "prepare", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


@pytest.fixture
def in_process(monkeypatch):
    """Spare the tests the start of processes; those that are about processes go without it."""
    from halebrain.core import parallel

    original = parallel.map_items
    monkeypatch.setattr("halebrain.workflows.prepare.map_items", lambda f, items, _, **more: original(f, items, **more))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "subject", "session"),
    [
        ("P1_visit1_T1w", "P1", "visit1"),
        ("P1_T1_visit-02", "P1", "visit02"),
        ("P1_ses1_FLAIR", "P1", "1"),
        ("P1-Session 3-T2", "P1", "3"),
        ("a_tp2_b_T1w", "ab", "tp2"),
        ("P1_baseline_T1", "P1", "baseline"),
        ("P1_follow-up2_T1", "P1", "followup2"),
        ("baseline_T1", "baseline", None),  # nobody's name is left
        ("visitor12_T1", "visitor12", None),
        ("Moses1_T1", "Moses1", None),
        ("P1_T1", "P1", None),
    ],
)
def test_a_visit_in_a_name_is_the_session_of_its_person(name, subject, session):
    (record,) = records_of([(Path(f"{name}.nii"), name)])
    assert (record.subject, record.session) == (subject, session)


def test_no_split_tears_the_visits_of_a_person_apart():
    names = [
        f"P{number}_visit{visit}_{contrast}" for number in (1, 2) for visit in (1, 2) for contrast in ("T1w", "T2w")
    ]
    records = records_of([(Path(f"{name}.nii"), name) for name in names])
    assert {record.subject for record in records} == {"P1", "P2"}
    assert len({record.scan_id for record in records}) == len(names)


def test_a_folder_becomes_a_data_set(raw, tmp_path, monkeypatch, in_process):
    dataset = tmp_path / "set"
    assert run(monkeypatch, "-i", raw, "-o", dataset, *OPTIONS, "--split", "0.6,0.2,0.2") == 0
    manifest, native = Manifest.read(dataset / "manifest.tsv"), Manifest.read(dataset / "manifest_native.tsv")
    assert [record.subject for record in manifest] == [f"case{n}" for n in range(5)]
    assert sorted(record.split for record in manifest) == ["test", "train", "train", "train", "val"]
    assert all(record.image.is_relative_to(dataset) for record in manifest)
    assert [record.image.resolve() for record in native] == sorted(path.resolve() for path in raw.iterdir())
    assert read_array(native.records[0].brain_mask)[0].shape == (40, 48, 40)
    assert json.loads((dataset / "dataset_description.json").read_text())["DatasetType"] == "derivative"
    table = (dataset / "qc.tsv").read_text().splitlines()
    assert len(table) == 6
    assert "working_grid_mask_dice" in table[0]
    assert not (dataset / "failed.tsv").exists()


@pytest.mark.parametrize("name", sorted(shipped_configs("reconstructor")))
def test_scans_are_prepared_as_the_training_of_a_name_asks(name):
    asked = load_config(ReconstructorTraining, shipped_configs("reconstructor")[name], ["data.manifest=x.tsv"])
    settings = read_preprocessing(Path(name), [], None, None)
    assert settings.model_dump(exclude={"brain"}) == asked.data.preprocessing.model_dump(exclude={"brain"})
    assert read_preprocessing(Path(name), ["spacing_mm=3"], None, None).spacing_mm == 3


def test_the_brain_that_a_file_of_ones_own_states_is_found_so(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("brain: hdbet\n")
    assert read_preprocessing(file, [], None, None).brain == "hdbet"
    assert read_preprocessing(file, ["brain=none"], None, None).brain == "none"
    assert read_preprocessing(file, [], None, "atlas").brain == "atlas"
    file.write_text("spacing_mm: 3\n")
    assert read_preprocessing(file, [], None, None).brain == "auto"
    assert read_preprocessing(Path("demo"), [], None, None).brain == "auto", "a shipped training has stripped scans"


def test_a_training_of_no_known_name_is_refused(raw, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "-i", raw, "-o", tmp_path / "set", "-c", "papr") == 66
    assert "did you mean 'paper'" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


@pytest.mark.slow
def test_what_scans_show_is_said_once_and_the_next_step_says_what_lacks(raw, tmp_path, monkeypatch, in_process):
    image = write_head(tmp_path / "sick_T1w.nii.gz", seed=9)
    rows = [ScanRecord(subject="sick", image=image, modality="T1w", pathology="ms", split="train")]
    rows += [ScanRecord(subject=f"s{n}", image=raw / f"case{n}_T1w.nii.gz", modality="T1w") for n in range(3)]
    Manifest(tuple(rows)).write(tmp_path / "raw.tsv")
    assert run(monkeypatch, "-i", tmp_path / "raw.tsv", "-o", tmp_path / "set", *OPTIONS) == 0
    table = tmp_path / "set" / "manifest.tsv"
    assert _next_step(table, None).endswith("--pathology and --split")
    options = ("--pathology", "healthy", "--split", "0.5,0.25,0.25")
    assert run(monkeypatch, "-i", tmp_path / "raw.tsv", "-o", tmp_path / "set", *OPTIONS, *options) == 0
    assert _next_step(table, None).startswith("halebrain train reconstructor -c demo")
    assert _next_step(table, Path("paper")).startswith("halebrain train reconstructor -c paper")
    said = {record.subject: record.pathology for record in Manifest.read(table)}
    assert said == {"sick": "ms", "s0": "healthy", "s1": "healthy", "s2": "healthy"}


def test_a_table_may_use_other_words_for_a_contrast_that_is_not_supported(raw, tmp_path):
    record = ScanRecord(subject="0", image=raw / "case0_T1w.nii.gz", modality="dti")
    assert any("its name says dwi" in flag for flag in prepare_scan(PrepareTask(record, tmp_path, CONFIG)).flags)


def test_prepared_and_raw_scans_teach_the_same(raw, tmp_path, monkeypatch, in_process):
    lesion = tmp_path / "lesion.nii.gz"
    image = write_head(raw / "sick_T1w.nii.gz", seed=9, lesion=lesion)
    row = ScanRecord(subject="sick", image=image, modality="T1w", lesion=lesion, pathology="ms")
    table = tmp_path / "raw.tsv"
    Manifest((row,)).write(table)
    assert run(monkeypatch, "-i", table, "-o", tmp_path / "set", *OPTIONS) == 0
    prepared = Manifest.read(tmp_path / "set" / "manifest.tsv")
    (same,) = prepared.records
    assert same.pathology == "ms"
    one = build_store(Manifest((row,)), CONFIG, tmp_path / "cache_raw", description="scans")
    other = build_store(prepared, CONFIG, tmp_path / "cache_prepared", description="scans")
    np.testing.assert_array_equal(one.images[0], other.images[0])
    np.testing.assert_array_equal(one.labels[0], other.labels[0])
    assert (one.labels[0] == 3).any()


@pytest.mark.slow
def test_what_is_done_is_kept_until_its_input_changes(raw, tmp_path):
    record = records_of([(raw / "case0_T1w.nii.gz", "case0_T1w")])[0]
    task = PrepareTask(record, tmp_path / "set", CONFIG)
    files = prepared_files(task.dataset, record)
    assert not prepare_scan(task).kept
    before = files.image.stat().st_mtime_ns
    assert prepare_scan(task).kept
    assert files.image.stat().st_mtime_ns == before
    files.brain_mask.unlink()
    assert not prepare_scan(task).kept, "a file was lost"
    write_head(record.image, seed=77)
    assert not prepare_scan(task).kept, "the scan is another one"
    other = CONFIG.model_copy(update={"high_percentile": 98.0})
    assert not prepare_scan(PrepareTask(record, task.dataset, other)).kept, "the settings are others"


def test_the_name_of_another_scan_is_not_taken(raw, tmp_path):
    record = records_of([(raw / "case0_T1w.nii.gz", "case0_T1w")])[0]
    prepare_scan(PrepareTask(record, tmp_path / "set", CONFIG))
    other = ScanRecord(**{**vars(record), "image": write_head(tmp_path / "b" / "case0_T1w.nii.gz", seed=5)})
    with pytest.raises(CannotWriteError, match=r"need different names, got sub-case0_T1w, which exists already"):
        prepare_scan(PrepareTask(other, tmp_path / "set", CONFIG))
    moved = ScanRecord(**{**vars(record), "image": tmp_path / "moved_T1w.nii.gz"})
    shutil.copy(record.image, moved.image)
    assert prepare_scan(PrepareTask(moved, tmp_path / "set", CONFIG)).kept, "the same scan, moved"
    assert not prepare_scan(PrepareTask(other, tmp_path / "set", CONFIG, overwrite=True)).kept


def test_an_age_is_corrected_without_preparing_again(raw, tmp_path, monkeypatch, in_process):
    row = ScanRecord(subject="a", image=raw / "case0_T1w.nii.gz", modality="T1w", age=30.0)
    for age in (30.0, 31.0):
        Manifest((ScanRecord(**{**vars(row), "age": age}),)).write(tmp_path / "raw.tsv")
        assert run(monkeypatch, "-i", tmp_path / "raw.tsv", "-o", tmp_path / "set", *OPTIONS) == 0
        assert Manifest.read(tmp_path / "set" / "manifest.tsv").records[0].age == age


@pytest.mark.slow
def test_bad_scans_are_listed_and_the_others_are_there(raw, tmp_path, monkeypatch, capsys, in_process):
    (raw / "broken_T1w.nii.gz").write_bytes(b"no gzip at all")
    write_volume(raw / "empty_T1w.nii.gz", np.zeros((9, 9, 9), np.float32), np.eye(4))
    dataset = tmp_path / "set"
    assert run(monkeypatch, "-i", raw, "-o", dataset, *OPTIONS) == 3
    failed = (dataset / "failed.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in failed] == ["scan", "sub-broken_T1w", "sub-empty_T1w"]
    assert len(Manifest.read(dataset / "manifest.tsv")) == 5
    assert "2 of 7 that failed" in capsys.readouterr().err
    for name in ("broken", "empty"):
        (raw / f"{name}_T1w.nii.gz").unlink()
    assert run(monkeypatch, "-i", raw, "-o", dataset, *OPTIONS) == 0
    assert not (dataset / "failed.tsv").exists()


def test_a_scan_that_fails_leaves_no_result_of_an_earlier_input(raw, tmp_path):
    record = records_of([(raw / "case0_T1w.nii.gz", "case0_T1w")])[0]
    task = PrepareTask(record, tmp_path / "set", CONFIG)
    prepare_scan(task)
    record.image.write_bytes(b"no gzip at all")
    with pytest.raises(DataError):
        prepare_scan(task)
    assert not read_entries(task.dataset)


def test_failures_of_an_earlier_run_in_parts_are_not_those_of_the_whole(raw, tmp_path, monkeypatch, in_process):
    dataset, broken = tmp_path / "set", raw / "case1_T1w.nii.gz"
    broken.write_bytes(b"no gzip at all")
    assert run(monkeypatch, "-i", raw, "-o", dataset, *OPTIONS, "--num-parts", 4, "--part-id", 1) == 3
    assert (dataset / "failed-1of4.tsv").exists()
    (dataset / "failed_by_eye.tsv").write_text("scan\terror\ncase0\tblurred\n")
    write_head(broken, seed=1)
    assert run(monkeypatch, "-i", raw, "-o", dataset, *OPTIONS) == 0
    assert [path.name for path in dataset.glob("failed*.tsv")] == ["failed_by_eye.tsv"]
    assert "1 failed" not in (dataset / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_parts_together_are_the_whole(raw, tmp_path, monkeypatch, in_process):
    dataset = tmp_path / "set"
    assert run(monkeypatch, "-i", raw, "-o", dataset, *OPTIONS, "--num-parts", 2, "--part-id", 1) == 0
    assert not (dataset / "manifest.tsv").exists()
    assert run(monkeypatch, "-i", raw, "-o", dataset, *OPTIONS, "--num-parts", 2, "--part-id", 0) == 0
    assert len(Manifest.read(dataset / "manifest.tsv")) == 5
    assert run(monkeypatch, "-i", raw, "-o", dataset, *OPTIONS, "--num-parts", 2, "--part-id", 2) == 2


@pytest.mark.parametrize("name", ["a b_T1w", 'it\'s "one"_T1w', "Größe_T1w", "two\nlines_T1w", "t1 <script>"])
def test_names_of_any_kind_come_through(tmp_path, monkeypatch, name, in_process):
    write_head(tmp_path / "raw" / f"{name}.nii.gz")
    assert run(monkeypatch, "-i", tmp_path / "raw", "-o", tmp_path / "set", *OPTIONS) == 0
    (row,) = Manifest.read(tmp_path / "set" / "manifest.tsv").records
    assert row.subject.isalnum()
    assert read_volume(Manifest.read(tmp_path / "set" / "manifest_native.tsv").records[0].image)


@pytest.mark.slow
def test_bids_scans_of_two_spaces_are_two_and_say_space_once(tmp_path, monkeypatch, in_process):
    anat = tmp_path / "raw" / "sub-01" / "anat"
    for number, name in enumerate(("sub-01_FLAIR", "sub-01_space-T1w_FLAIR")):
        write_head(anat / f"{name}.nii.gz", seed=number)
    (tmp_path / "raw" / "dataset_description.json").write_text('{"Name": "raw", "BIDSVersion": "1.10.0"}')
    assert run(monkeypatch, "-i", tmp_path / "raw", "-o", tmp_path / "set", *OPTIONS) == 0
    rows = Manifest.read(tmp_path / "set" / "manifest.tsv").records
    assert sorted(row.scan_id for row in rows) == ["sub-01_FLAIR", "sub-01_space-T1w_FLAIR"]
    names = sorted(row.image.name for row in rows)
    assert names == [f"sub-01_{rec}space-{TEMPLATE_SPACE}_desc-preproc_FLAIR.nii.gz" for rec in ("rec-spaceT1w_", "")]


def test_two_people_whose_labels_would_be_one_stay_two():
    from pathlib import Path

    records = records_of([(Path("a_b_T1w.nii"), "a_b_T1w"), (Path("ab_T1w.nii"), "ab_T1w")])
    assert len({record.scan_id for record in records}) == 2
    again = records_of([(Path("ab_T1w.nii"), "ab_T1w"), (Path("a_b_T1w.nii"), "a_b_T1w")])
    assert {record.scan_id for record in again} == {record.scan_id for record in records}


def test_two_images_of_one_contrast_stay_one_person():
    names = ["sub-01_T1w", "sub-01_desc-norm_T1w", "sub-01_FLAIR", "p04_T1", "p04_mprage", "p04_T2"]
    records = records_of([(Path(f"{name}.nii"), name) for name in names])
    assert [record.subject for record in records] == ["01"] * 3 + ["p04"] * 3
    assert [record.entities for record in records[:3]] == [None, "desc-norm", None]
    assert len({record.scan_id for record in records}) == 6
    both = ["a_b_T1", "a_b_T2", "ab_T1", "ab_FLAIR"]
    subjects = [record.subject for record in records_of([(Path(f"{name}.nii"), name) for name in both])]
    assert subjects[0] == subjects[1] != subjects[2] == subjects[3], "all contrasts of a person go one way"


def test_contrasts_of_one_person_are_one_subject():
    from pathlib import Path

    in_folders = records_of([(Path(f"/raw/{who}/FLAIR.nii"), "FLAIR") for who in ("p1", "p2")])
    assert [record.subject for record in in_folders] == ["p1", "p2"]
    names = ["p04_T1", "p04_T2", "p04_flair", "p05_T1"]
    records = records_of([(Path(f"{name}.nii"), name) for name in names])
    assert [(record.subject, record.modality) for record in records] == [
        ("p04", "T1w"),
        ("p04", "T2w"),
        ("p04", "FLAIR"),
        ("p05", "T1w"),
    ]


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("sub-01_ses-2_FLAIR", "FLAIR"),
        ("p1_t2-flair", "FLAIR"),
        ("p1_T1ce", "T1ce"),
        ("p1-t1w", "T1w"),
        ("x_MPRAGE_1mm", "T1w"),
        ("brain_t2", "T2w"),
        ("t12", None),
        ("sub-01_T2starw", "T2starw"),
        ("sub01_T2_star", "T2starw"),
        ("sub-1_T2-star", "T2starw"),
        ("p1_T2w_star_mag", "T2starw"),
        ("p1 T2*", "T2starw"),
        ("p1_T2*w_2mm", "T2starw"),
        ("p1_T2_starting", "T2w"),
        ("t2_tse_dark_fluid", "FLAIR"),
        ("p1_dark-fluid", "FLAIR"),
        ("t2_spc_da-fl_sag_p2_iso", "FLAIR"),
        ("p1_ADC", "ADC"),
        ("sub-01_ses-pet_T1w", "T1w"),
        ("AX_T1_FLAIR", None),
        ("p1_FLAIR_space-T1w", "FLAIR"),
        ("p1_T2_space-FLAIR", "FLAIR"),
        ("BraTS-GLI-00000-000-t2f", "FLAIR"),
        ("p1_T1_T2", None),
        ("p1_T1_in_FLAIR", "T1w"),
        ("p1_T1_to_T2", "T1w"),
        ("p1_FLAIR_reg_T1", "FLAIR"),
        ("p1_T1_registered_to_T2_1mm", "T1w"),
        ("t2_space_dark-fluid", "FLAIR"),
        ("scan", None),
    ],
)
def test_names_say_the_contrast(name, modality):
    assert guess_modality(name) == modality


@pytest.mark.slow
def test_a_name_that_does_not_say_the_contrast_asks_for_it(tmp_path, monkeypatch, capsys, in_process):
    write_head(tmp_path / "raw" / "scan.nii.gz")
    assert run(monkeypatch, "-i", tmp_path / "raw", "-o", tmp_path / "set", *OPTIONS) == UsageError.exit_code
    assert "--modality" in capsys.readouterr().err
    assert run(monkeypatch, "-i", tmp_path / "raw", "-o", tmp_path / "set", *OPTIONS, "--modality", "T2w") == 0


def test_the_output_does_not_lie_among_the_raw_scans(raw, monkeypatch):
    assert run(monkeypatch, "-i", raw, "-o", raw / "set", *OPTIONS) == UsageError.exit_code
    assert not (raw / "set").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs to mount a small file system")
@pytest.mark.parametrize("options", ["size=48k", "size=48k,ro"])
def test_a_full_or_a_read_only_disk_is_one_line_and_leaves_nothing_half(raw, tmp_path, monkeypatch, options, capsys):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        code = run(monkeypatch, "-i", raw, "-o", disk / "set", *OPTIONS, "--workers", 1)
        err = capsys.readouterr().err
        assert code == CannotWriteError.exit_code
        assert err.count("needs free disk space") + err.count("must be writable") == 1, "no further scan is tried"
        assert "Traceback" not in err
        assert not list(disk.rglob(".part-*"))
        for image in disk.rglob("*desc-preproc*.nii.gz"):
            if image.with_name(image.name.replace(".nii.gz", ".json")).exists():
                read_volume(image)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_ends_the_same(raw, tmp_path, monkeypatch):
    command = [sys.executable, "-c", "from halebrain.cli.main import main; main()", "prepare", "-i", str(raw)]

    def bytes_of(dataset):
        return {path.relative_to(dataset): path.read_bytes() for path in sorted(dataset.rglob("*.nii.gz"))}

    assert run(monkeypatch, "-i", raw, "-o", tmp_path / "whole", *OPTIONS) == 0
    stopped = subprocess.Popen([*command, "-o", str(tmp_path / "set"), *OPTIONS], start_new_session=True)
    while not list((tmp_path / "set").glob("sub-*/anat/*.json")):
        assert stopped.poll() is None
        time.sleep(0.02)
    os.killpg(stopped.pid, signal.SIGKILL)
    stopped.wait()
    assert run(monkeypatch, "-i", raw, "-o", tmp_path / "set", *OPTIONS) == 0
    assert bytes_of(tmp_path / "set") == bytes_of(tmp_path / "whole")
