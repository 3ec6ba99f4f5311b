"""The whole method at toy size: the demo, its resumption, and detection on scans as other scanners store them."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_maker import Maker
from scipy import ndimage

from halebrain.cli.demo import demo
from halebrain.cli.main import main
from halebrain.io.bids_validator import validation_errors
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.models.bundle import load_bundle
from halebrain.models.store import export_model

pytestmark = [
    pytest.mark.slow,
    # Lightning warns about the machine, not about the run.
    pytest.mark.filterwarnings("ignore::UserWarning:lightning.*"),
]


@dataclass(frozen=True)
class Demo:
    folder: Path
    seconds: float

    @property
    def model(self) -> Path:
        return self.folder / "stage2" / "model"

    def patient(self) -> ScanRecord:
        manifest = Manifest.read(self.folder / "cohort" / "manifest.tsv")
        return next(r for r in manifest if r.pathology == "tumour" and r.modality == "FLAIR")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    start = time.monotonic()
    demo(output=folder, quick=True, device="cpu", no_progress=True)
    return Demo(folder, time.monotonic() - start)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command line in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["halebrain", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_the_demo_leaves_all_that_it_promises(ran: Demo) -> None:
    for name in ("index.html", "mosaic.png", "evaluation/scans.tsv", "evaluation/summary.md", "cohort/montage.png"):
        assert (ran.folder / name).stat().st_size > 100, name
    assert len(list((ran.folder / "detection").glob("*provenance.json"))) == 1
    summary = json.loads((ran.folder / "evaluation" / "summary.json").read_text())
    assert summary["provenance"]["model_sha256"] == load_bundle(ran.model).sha256
    methods = {s["method"] for s in summary["summaries"] if s["metric"] == "auprc"}
    assert methods == {"model", "segmenter alone", "reconstruction alone", "intensity rank"}
    rank = next(s for s in summary["summaries"] if s["method"] == "intensity rank" and s["metric"] == "auprc")
    assert 0 < rank["mean"] <= 1
    assert rank["n_scans"] >= 1


def test_the_page_loads_nothing_from_elsewhere(ran: Demo) -> None:
    page = (ran.folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=(["']|&#34;|&quot;)https?:|url\(["']?https?:""", page)
    assert page.count("<iframe") == 1
    assert page.count("data:image/png;base64,") >= 4
    link = re.search(r'<a href="(detection/[^"]+_report\.html)"', page)
    assert link is not None
    assert (ran.folder / link[1]).is_file()


def test_the_evaluated_were_never_learned_from(ran: Demo) -> None:
    bundle = load_bundle(ran.model)
    learned = {s for stage in bundle.training.values() for s in stage["train_subjects"] + stage["val_subjects"]}
    learned |= set(bundle.calibration["subjects"])
    lines = (ran.folder / "evaluation" / "scans.tsv").read_text().splitlines()
    subjects = {line.split("\t")[1] for line in lines[1:]}
    assert learned
    assert subjects
    assert not learned & subjects


def test_a_second_run_goes_on_from_what_is_there(ran: Demo) -> None:
    weights = (ran.model / "model.safetensors").read_bytes()
    hash_before = load_bundle(ran.model).sha256
    logs = [(ran.folder / stage / "log.csv").read_bytes() for stage in ("stage1", "stage2")]
    start = time.monotonic()
    demo(output=ran.folder, quick=True, device="cpu", no_progress=True)
    assert time.monotonic() - start < ran.seconds
    assert load_bundle(ran.model).sha256 == hash_before
    assert (ran.model / "model.safetensors").read_bytes() == weights
    assert [(ran.folder / stage / "log.csv").read_bytes() for stage in ("stage1", "stage2")] == logs


def stored_otherwise(record: ScanRecord, path: Path) -> nibabel.Nifti1Image:
    """Write the stripped scan with axes permuted and flipped (S, P, L order), and every second slice dropped."""
    image = nibabel.load(record.image)
    data = np.asarray(image.dataobj, dtype=np.float32)
    if record.brain_mask is not None:
        data = data * (np.asarray(nibabel.load(record.brain_mask).dataobj) > 0)
    plain = nibabel.as_closest_canonical(nibabel.Nifti1Image(data, image.affine)).slicer[:, :, ::2]
    wanted = nibabel.orientations.axcodes2ornt("SPL")
    turned = plain.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(plain.affine), wanted))
    turned.set_sform(turned.affine, code=1)
    turned.set_qform(turned.affine, code=1)
    assert nibabel.aff2axcodes(turned.affine) == ("S", "P", "L")
    nibabel.save(turned, path)
    return turned


def test_a_scan_stored_otherwise_gets_maps_on_its_own_grid(
    ran: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = tmp_path / "sub-x_FLAIR.nii.gz"
    native = stored_otherwise(ran.patient(), scan)
    out = tmp_path / "out"
    arguments = ("detect", "-i", scan, "-o", out, "--model", ran.model, "--device", "cpu", "--no-progress")
    assert command(monkeypatch, *arguments) == 0

    provenance = json.loads(next(out.glob("*provenance.json")).read_text())
    assert provenance["qc"]["registration_failed"] is False
    assert provenance["qc"]["registration_mask_dice"] > 0.85
    maps = {p.name.removeprefix("sub-x_"): nibabel.load(p) for p in out.glob("*.nii.gz")}
    assert len(maps) == 7
    for name, image in maps.items():
        assert image.shape == native.shape, name
        np.testing.assert_allclose(image.affine, native.affine, atol=1e-3)
    mask = maps["rec-FLAIR_desc-anomaly_mask.nii.gz"]
    assert mask.get_data_dtype() == np.uint8
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1}
    brain = np.asarray(maps["rec-FLAIR_desc-brain_mask.nii.gz"].dataobj) > 0
    shown = np.asarray(native.dataobj) > 0
    assert 2 * (brain & shown).sum() / (brain.sum() + shown.sum()) > 0.9
    for name in ("rec-FLAIR_desc-anomaly_probseg.nii.gz", "rec-FLAIR_desc-segmenter_probseg.nii.gz"):
        values = np.asarray(maps[name].dataobj)
        assert values.min() >= 0
        assert values.max() <= 1
        assert values[brain].max() > 0
        assert not values[~brain].any()

    # Asked again with the same settings, what is there is left; with others, it is refused.
    stamp = next(out.glob("*provenance.json")).stat().st_mtime_ns
    assert command(monkeypatch, *arguments) == 0
    assert next(out.glob("*provenance.json")).stat().st_mtime_ns == stamp
    assert command(monkeypatch, *arguments, "--seed", 7) == 73


def test_one_bad_file_does_not_stop_the_others(
    ran: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    stored_otherwise(ran.patient(), folder / "sub-b_FLAIR.nii.gz")
    (folder / "sub-a_FLAIR.nii.gz").write_bytes(b"no scan at all")
    code = command(
        monkeypatch, "detect", "-i", folder, "-o", out, "--model", ran.model, "--device", "cpu", "--no-progress"
    )
    assert code == 3
    assert "sub-a_FLAIR" in capsys.readouterr().err
    assert list((out / "sub-b_FLAIR").glob("*provenance.json"))
    assert (
        len(list((out / "sub-b_FLAIR").iterdir())) == 20
    )  # 7 maps and a table with their JSON, page, pictures, provenance
    assert not (out / "sub-a_FLAIR").exists()


def test_the_cohort_of_the_demo_is_valid_bids(ran: Demo, validator: Path) -> None:
    assert validation_errors(validator, ran.folder / "cohort") == []


def test_the_bids_app_with_the_model_of_the_demo_writes_valid_bids(
    ran: Demo, validator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = tmp_path / "scan.nii.gz"
    stored_otherwise(ran.patient(), scan)
    study = _as_bids(scan, tmp_path)
    for out in (study / "derivatives" / "halebrain", tmp_path / "elsewhere"):
        settings = ("--model", ran.model, "--device", "cpu", "--no-progress")
        assert command(monkeypatch, "bids", study, out, "participant", *settings) == 0
        assert command(monkeypatch, "bids", study, out, "group") == 0
        assert (out / "index.html").is_file()
        assert validation_errors(validator, out) == []


ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    b for page in PAGES for b in re.findall(r"```(sh|python)\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)
]
# `make` is run with a stand-in, by test_docs_scripts.py.
BLOCKS = [block for block in BLOCKS if "make demo" not in block[1]]


def _as_bids(scan: Path, folder: Path) -> Path:
    """Put a scan into a BIDS data set `study`; return the data set."""
    raw = folder / "study" / "sub-01" / "anat" / "sub-01_FLAIR.nii.gz"
    raw.parent.mkdir(parents=True)
    shutil.copy(scan, raw)
    about = {"Name": "study", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (folder / "study" / "dataset_description.json").write_text(json.dumps(about))
    return folder / "study"


def _as_dicom(scan: Path, folder: Path) -> None:
    """Put a scan into a DICOM series `dicom_folder`."""
    image = nibabel.load(scan)
    Maker(np.asarray(image.dataobj).astype(np.uint16), image.affine).write(folder / "dicom_folder")


@pytest.fixture
def newcomer(ran: Demo, tmp_path: Path) -> Path:
    """A folder with the files that the documents speak of."""
    shutil.copytree(ran.folder, tmp_path / "demo")
    # An imported model goes before a bundled one: the documents are tried with the demo's, whatever is bundled.
    export_model(ran.model, tmp_path / "home" / "models" / "general.zip")
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    for path in (ran.folder / "cohort").iterdir():
        (tmp_path / path.name).symlink_to(path)
    scan = tmp_path / "sub-01_FLAIR.nii.gz"
    image = stored_otherwise(ran.patient(), scan)
    brain = (np.asarray(image.dataobj) > 0).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(brain, image.affine), tmp_path / "mask.nii.gz")
    (tmp_path / "folder_of_scans").mkdir()
    shutil.copy(scan, tmp_path / "folder_of_scans" / "sub-02_FLAIR.nii.gz")
    _as_bids(scan, tmp_path)
    _as_dicom(scan, tmp_path)
    for record in Manifest.read(ran.folder / "cohort" / "manifest.tsv"):
        if record.lesion is None:
            continue
        lesion = nibabel.load(record.lesion)
        values = np.asarray(lesion.dataobj)
        parts = {
            "truth": values,
            "masks": np.roll(values, 1, axis=0),
            "maps": ndimage.gaussian_filter(values.astype(np.float32), 1.5),
            "brains": np.asarray(nibabel.load(record.image).dataobj) > 0,
        }
        for name, data in parts.items():
            (tmp_path / name).mkdir(exist_ok=True)
            dtype = np.float32 if name == "maps" else np.uint8
            image = nibabel.Nifti1Image(data.astype(dtype), lesion.affine)
            nibabel.save(image, tmp_path / name / f"sub-{record.subject}_{name}.nii.gz")
    return tmp_path


@pytest.mark.parametrize(("kind", "block"), BLOCKS, ids=[text.split("\n")[0][:40] for _, text in BLOCKS])
def test_the_commands_of_the_documents_work_as_written(
    newcomer: Path, request: pytest.FixtureRequest, kind: str, block: str
) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment["HALEBRAIN_HOME"] = str(newcomer / "home")
    if "HALEBRAIN_TEST_DATA" in block:
        environment["HALEBRAIN_TEST_DATA"] = str(request.getfixturevalue("real_data"))
    # The published networks need a GPU; everything else runs as it stands.
    quick = block.replace("-c paper", "-c tiny")
    run = ["bash", "-euo", "pipefail", "-c", quick] if kind == "sh" else [sys.executable, "-c", quick]
    done = subprocess.run(run, cwd=newcomer, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_notebook_of_the_tour_runs_as_it_stands(newcomer: Path) -> None:
    cells = json.loads((ROOT / "docs" / "tour.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    environment = os.environ | {"MPLBACKEND": "agg", "HALEBRAIN_HOME": str(newcomer / "home")}
    done = subprocess.run([sys.executable, "-c", code], cwd=newcomer, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Research use only" in done.stdout
    assert (newcomer / "tour_mask.nii.gz").is_file()
