"""A whole benchmark at toy size: everything is written, a finished cell stays, a failed one is named."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest
import yaml

from halebrain.benchmarking import run as run_module
from halebrain.benchmarking.config import MatrixConfig
from halebrain.benchmarking.judge import CellResult
from halebrain.benchmarking.plan import plan
from halebrain.core.config import load_config
from halebrain.core.errors import ConfigError
from halebrain.core.files import write_text
from small_matrix import AE, DRAEM, MATRIX, PAIR, ddpm, joint

UNET = {"channels": [8, 8], "blocks_per_level": 1, "patch": 4, "norm_groups": 4, "attention_head_channels": 0}

# Lightning warns about the machine, not about the run.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning.*")


@pytest.fixture
def matrix(tmp_path, small_cohort):
    rows = [(f"h{n}", "FLAIR", split, "healthy") for n, split in enumerate(("train", "train", "val", "test"))]
    for pathology in ("ms", "stroke"):
        rows += [(f"{pathology}{n}", "FLAIR", s, pathology) for n, s in enumerate(("train", "val", "test", "test"))]
    config = MATRIX | {
        "manifest": str(small_cohort(rows)),
        "pathologies": ["ms", "stroke"],
        "seeds": [0, 1],
        "postprocessing": {"residual": "positive", "median_size": 1},
        "joint_defaults": joint(UNET),
        "reconstructors": {"ae": AE, "ddpm": ddpm(UNET)},
        "segmenters": {
            "pair": PAIR | {"reconstructor": "ddpm", "block": "III weakly supervised"},
            "draem": DRAEM | {"block": "II self-supervised"},
        },
        "synthetic": {"name": "blobs", "settings": {"probability": 1, "size": [3, 10]}},
        "baselines": ["intensity rank", "atlas z-score"],
        "reference": "DDPM",
        "contrasts": [
            {"name": "fused − pair", "first": "SADM_res", "second": "Unet_res", "columns": "all"},
            {"name": "pair − rank", "first": "Unet_res", "second": ["AE", "intensity rank"], "columns": "unseen"},
        ],
        "published": {"DDPM": {"ms": [48.65, 46.93]}},
    }

    def write(**changes):
        path = tmp_path / "matrix.yaml"
        path.write_text(yaml.safe_dump(config | changes))
        return path

    return write


@pytest.fixture
def run(command, tmp_path):
    def call(path, *more):
        out = tmp_path / "out"
        code, said = command("benchmark", "-c", path, "-o", out, "--device", "cpu", "--no-progress", *more)
        return code, said, out

    return call


def stamps(out):
    return {path: path.stat().st_mtime_ns for path in out.glob("cells/**/result.json")}


@pytest.mark.slow
def test_the_matrix_from_end_to_end_and_again(matrix, run):
    code, said, out = run(matrix())
    assert code == 0, said.err
    assert [line.rsplit("/", 1)[1] for line in said.out.split()] == [
        *("results.tsv", "matrix.tsv", "matrix.md", "matrix.json", "contrasts.tsv", "index.html"),
    ]
    lines = [line.split("\t") for line in (out / "matrix.tsv").read_text().splitlines()]
    titles = {line[0] for line in lines[1:]}
    assert titles == {
        "intensity rank",
        "atlas z-score",
        "AE",
        "DDPM",
        "DRAEM-Net (DRAEM)",
        "Unet_res (ms)",
        "SADM_res (ms)",
    }
    assert len(lines) == 1 + 7 * 3
    seen = {(line[0], line[5]) for line in lines[1:] if line[6] == "yes"}
    assert seen == {("Unet_res (ms)", "ms"), ("SADM_res (ms)", "ms")}
    runs = {line[0]: line[4] for line in lines[1:]}
    assert runs["DDPM"] == "2"
    assert runs["intensity rank"] == "1"
    page = (out / "index.html").read_text()
    assert "[48.6 / 46.9]" in page or "[48.7 / 46.9]" in page
    assert "★" in page
    assert (out / "figures" / "example_synthetic.png").stat().st_size > 1000
    assert (out / "figures" / "example_ms.png").stat().st_size > 1000
    provenance = json.loads((out / "matrix.json").read_text())
    assert len(provenance["cells"]) == 1 + 2 * 4
    fused, pair = provenance["contrasts"]
    assert (fused["n_subjects"], fused["n_runs"]) == (4, 2)
    assert (pair["n_subjects"], pair["stated"]["columns"]) == (2, "unseen")
    assert pair["second"] in ("AE", "intensity rank")
    assert "Contrasts stated before the run" in page
    assert len((out / "contrasts.tsv").read_text().splitlines()) == 3

    before = stamps(out)
    assert run(matrix())[0] == 0
    assert stamps(out) == before
    # Another anomaly map: every model is judged again, none is trained again.
    models = {path: path.stat().st_mtime_ns for path in out.glob("cells/**/model.safetensors")}
    assert len(models) == 8
    assert run(matrix(postprocessing={"residual": "absolute", "median_size": 1}))[0] == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("cells/**/model.safetensors")} == models
    assert all(time > before[path] for path, time in stamps(out).items())
    assert run(matrix())[0] == 0
    before = stamps(out)
    # One cell lost is one cell done again, to the same numbers.
    lost = next(out.glob("cells/fold0/seed0/pair-ms-*/result.json"))
    text = lost.read_text()
    lost.unlink()
    assert run(matrix())[0] == 0
    assert lost.read_text() == text
    assert {p for p, t in stamps(out).items() if before[p] != t} == {lost}


@pytest.mark.slow
def test_a_part_of_the_cells_gives_its_part_of_the_tables(matrix, run):
    code, said, out = run(matrix(), "--only", "*/seed1/ae", "--only", "*/baselines")
    assert code == 0, said.err
    titles = {line.split("\t")[0] for line in (out / "matrix.tsv").read_text().splitlines()[1:]}
    assert titles == {"AE", "intensity rank", "atlas z-score"}  # without the reference
    assert "not tested (no finished run of both)" in (out / "matrix.md").read_text()
    before = stamps(out)
    assert len(before) == 2
    assert run(matrix(), "--only", "*/seed1/*", "--only", "*/baselines")[0] == 0
    assert len(stamps(out)) == 1 + 4
    assert {path: stamps(out)[path] for path in before} == before


@pytest.mark.slow
def test_scans_that_nobody_annotated_are_counted(matrix, run, tmp_path):
    path = matrix(contrasts=[])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "contrasts.tsv").write_text("of an earlier file")
    table = tmp_path / "cohort" / "manifest.tsv"
    table.write_text(table.read_text().replace("sub-stroke3_FLAIR_mask.nii.gz", "n/a"))
    code, said, out = run(path, "--only", "*/baselines")
    assert code == 0, said.err
    assert "fold 0: 1 scan neither healthy nor annotated is left out" in said.err
    assert not (out / "contrasts.tsv").exists()
    assert "subjects drawn whole.\n" in (out / "matrix.md").read_text()
    assert json.loads((out / "matrix.json").read_text())["interval"].endswith("subjects drawn whole")
    text = (out / "index.html").read_text("utf-8")
    assert "Not finished or left out" in text
    assert "1 scan neither healthy nor annotated is left out" in text


@pytest.mark.slow
def test_a_cell_that_fails_is_named_and_the_rest_goes_on(matrix, run):
    path = matrix()
    config = yaml.safe_load(path.read_text())
    config["segmenters"]["pair"]["each_pathology"] = ["ms", "glioma"]
    config["pathologies"] = ["ms", "stroke", "glioma"]
    path.write_text(yaml.safe_dump(config))
    code, said, out = run(path)
    assert code == 3
    assert "fold0/seed1/pair-glioma failed: annotated training scans: at least one scan is needed" in said.err
    assert "no annotated test scan of glioma" in said.err
    assert "SADM_res (ms)" in (out / "matrix.md").read_text()
    assert "glioma failed" not in (out / "matrix.md").read_text()
    assert "pair-glioma" in (out / "index.html").read_text()


@pytest.mark.slow
def test_what_stands_on_a_failed_cell_is_named_too(matrix, run, monkeypatch):
    path = matrix()
    config = yaml.safe_load(path.read_text())
    config["reconstructors"]["ddpm"]["settings"]["loop"] = {"lr": 1e30}
    path.write_text(yaml.safe_dump(config))
    code, said, _ = run(path)
    assert code == 3
    assert "fold0/seed0/ddpm failed" in said.err
    assert "needs fold0/seed0/ddpm, which failed" in said.err


def test_processes_share_the_cells_out_and_each_has_all_results(matrix, monkeypatch, tmp_path):
    """With stand-ins for training and scans; threads hold locks against each other as processes do."""
    config, begun = load_config(MatrixConfig, matrix()), []
    both = threading.Barrier(2, timeout=60)

    def run_cell(cell, config, fold, folder, judged_as, *_):
        begun.append(cell.key)
        if len(begun) <= 2:
            both.wait()  # so that each process has a cell
        if cell.key == "fold0/seed1/ddpm":
            raise ConfigError("a rule", remedy="do that")
        result = CellResult([], {}, {}, {"identity": judged_as, "folder": folder.name})
        folder.mkdir(parents=True)
        (folder / run_module.PICTURES).touch()
        write_text(folder / "result.json", json.dumps(asdict(result)))
        return result

    monkeypatch.setattr(run_module, "_run_cell", run_cell)
    monkeypatch.setattr(run_module, "_open", lambda *_: "a fold")
    monkeypatch.setattr(run_module, "_POLL_S", 0.01)
    with ThreadPoolExecutor(2) as pool:
        arguments = (config, tmp_path / "shared")
        found = [pool.submit(run_module.run_benchmark, *arguments, device="cpu", notify=str) for _ in range(2)]
        outcomes = [future.result(timeout=120) for future in found]
    cells = [cell.key for cell in plan(config)]
    broken = {"fold0/seed1/ddpm", "fold0/seed1/pair-ms"}
    for outcome in outcomes:
        assert [cell.key for cell, _ in outcome.results] == [key for key in cells if key not in broken]
        assert set(outcome.failures) == broken
    assert sorted(set(begun)) == sorted(set(cells) - {"fold0/seed1/pair-ms"})
    # A cell that fails in one process is tried by the other one too, and nothing else is run twice.
    assert len(begun) == len(set(begun)) + 1
