"""The commands of `how-to/table1.md` do their work on small trees in the layouts of IXI, BraTS21 and ATLAS v2.0."""

import json
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

import halebrain
import small_matrix
from halebrain.benchmarking.config import MatrixConfig
from halebrain.benchmarking.cost import ScanCounts, cell_costs
from halebrain.benchmarking.plan import plan
from halebrain.core.config import load_config
from halebrain.io.manifest import SPLITS, Manifest, ScanRecord
from small_matrix import AE, GRID, PAIR

# Lightning warns about the machine, not about the run.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning.*")

PAGE = (Path(__file__).parents[1] / "docs" / "how-to" / "table1.md").read_text(encoding="utf-8")
CONFIGS = Path(halebrain.__file__).parent / "configs"
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = [shlex.split(line) for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line.strip()]
TABLE1, MORE = COMMANDS[:6], COMMANDS[6:]
SMALLER = {
    "--folds": {"5": "2"},
    "--val": {"44": "1"},
    "--test": {"160": "2"},
    "--weak": {"tumour=90:10": "tumour=1:1", "stroke=169:6": "stroke=1:1"},
    "--workers": {"4": "0"},
}
"""What makes the commands fit trees of a few subjects; everything else is as on the page."""
MATRIX = small_matrix.MATRIX | {
    "modality": "T1w",
    "pathologies": ["tumour", "stroke"],
    "synthetic": {"name": "blobs", "settings": {"probability": 1, "size": [3, 10]}},
    "postprocessing": {"residual": "positive", "median_size": 1},
    "reconstructors": {"AE": AE},
    "segmenters": {"weak-pair": PAIR | {"reconstructor": "AE", "each_pathology": ["tumour", "stroke"]}},
    "published": {"AE": {"tumour": [39.16, 35.95], "stroke": [14.14, 11.84]}},
}


@pytest.fixture
def trees(small_cohort: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The three data sets as their publishers name the files, in the folder in which the commands run."""
    ixi = _scans(small_cohort, "healthy", 5)
    for number, (image, _) in enumerate(ixi):
        _copy(image, tmp_path / "IXI" / "IXI-T1" / f"IXI{number + 2:03d}-Guys-08{number}8-T1.nii.gz")
        _copy(image, tmp_path / "IXI" / "IXI-T2" / f"IXI{number + 2:03d}-Guys-08{number}8-T2.nii.gz")
    rows = [f"{number + 2},{1 + number % 2},{25 + 10 * number}.5" for number in range(5)]
    (tmp_path / "IXI" / "IXI.csv").write_text("\n".join(["IXI_ID,SEX_ID (1=m; 2=f),AGE", *rows]) + "\n")
    for number, (image, lesion) in enumerate(_scans(small_cohort, "tumour", 3)):
        case = f"BraTS2021_{number:05d}"
        for contrast in ("t1", "t1ce", "t2", "flair"):
            _copy(image, tmp_path / "BraTS2021" / case / f"{case}_{contrast}.nii.gz")
        _copy(lesion, tmp_path / "BraTS2021" / case / f"{case}_seg.nii.gz")
    for number, (image, lesion) in enumerate(_scans(small_cohort, "stroke", 3)):
        name = f"sub-r001s{number:03d}"
        stem = f"{name}_ses-1_space-MNI152NLin2009aSym"
        anat = Path(name) / "ses-1" / "anat"
        training = tmp_path / "ATLAS_2" / "Training" / "R001" / anat
        _copy(image, training / f"{stem}_T1w.nii.gz")
        _copy(lesion, training / f"{stem}_label-L_desc-T1lesion_mask.nii.gz")
    hidden = "sub-r002s001_ses-1_space-MNI152NLin2009aSym_T1w.nii.gz"
    _copy(image, tmp_path / "ATLAS_2" / "Testing" / "R002" / "sub-r002s001" / "ses-1" / "anat" / hidden)
    (tmp_path / "preprocessing.yaml").write_text(yaml.safe_dump(GRID))
    (tmp_path / "matrix.yaml").write_text(yaml.safe_dump(MATRIX))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _scans(small_cohort: Callable[..., Path], pathology: str, count: int) -> list[tuple[Path, Path | None]]:
    rows = [(f"{pathology}{n}", "T1w", "train", pathology) for n in range(count)]
    return [(r.image, r.lesion) for r in Manifest.read(small_cohort(rows, f"made-{pathology}"))]


def _copy(source: Path | None, target: Path) -> None:
    assert source is not None
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def smaller(words: list[str]) -> list[str]:
    """Return a command of the page without its program, on a small scale."""
    found, before = [], ""
    for word in words[1:]:
        if before == "-c":
            assert word == "paper"
            word = "preprocessing.yaml" if words[1] == "prepare" else "matrix.yaml"
        if before == "--set":
            assert found.pop() == "--set"  # a row that needs weights; tried below
        else:
            found.append(SMALLER.get(before, {}).get(word, word) if before in SMALLER else word)
        before = word
    return [*found, *(["--device", "cpu"] if words[1] == "benchmark" else [])]


@pytest.mark.slow
def test_the_commands_lead_from_the_archives_to_the_table(command: Callable[..., Any], trees: Path) -> None:
    for number, words in enumerate(TABLE1):
        code, said = command(*smaller(words), *(["--no-progress"] if words[1] != "folds" else []))
        assert code == 0, (words, said.err)
        if number == 2:
            names = {path.parent.name: len(Manifest.read(path)) for path in trees.glob("data/*/manifest.tsv")}
            assert names == {"ixi": 5, "brats": 3, "atlas": 4}, "one contrast of each"
        if "--dry-run" in words:
            assert not (trees / "table1").exists()
            assert "missing" not in said.err
            assert "8 cells, 0 done" in said.err
    fold = Manifest.read(trees / "data" / "folds" / "fold1.tsv")
    assert Counter((r.split, r.condition) for r in fold) == {
        ("train", "healthy"): 2,
        ("val", "healthy"): 1,
        ("test", "healthy"): 2,
        **{(split, name): 1 for split in ("train", "val", "test") for name in ("tumour", "stroke")},
    }
    assert all(r.age for r in fold if r.is_healthy)
    table = (trees / "table1" / "matrix.md").read_text()
    assert "SADM_res (stroke)" in table
    assert "[39.2 / 35.9]" in table or "[39.2 / 36.0]" in table
    runs = {line.split("\t")[0] for line in (trees / "table1" / "results.tsv").read_text().splitlines()[1:]}
    assert runs == {"fold0 seed0", "fold1 seed0"}
    assert len(json.loads((trees / "table1" / "matrix.json").read_text())["cells"]) == 8


def test_the_page_has_six_commands_and_they_name_what_they_are_made_of() -> None:
    assert [words[1] for words in TABLE1] == ["prepare", "prepare", "prepare", "folds", "benchmark", "benchmark"]
    outputs = [words[words.index("-o") + 1] for words in COMMANDS if words[1] == "prepare"]
    for words in COMMANDS:
        if words[1] == "folds":
            tables = [word for before, word in pairwise(words) if before == "--manifest"]
            assert {str(Path(table).parent) for table in tables} <= set(outputs)
    assert "in six\ncommands" in PAGE


@pytest.mark.sweep  # counts the operations of the published networks: a minute and a half
def test_it_states_what_the_table_costs() -> None:
    config = load_config(MatrixConfig, CONFIGS / "matrix_paper.yaml", ["folds=[fold0.tsv]"])
    cells = plan(config)
    numbers = {"healthy": (358, 44, 160), "tumour": (90, 10, 1151), "stroke": (169, 6, 480)}
    rows = [
        ScanRecord(f"{name}{split}{n}", Path("x.nii"), "T1w", split=split, pathology=name, lesion=Path("y.nii"))
        for name, counts in numbers.items()
        for split, count in zip(SPLITS, counts, strict=True)
        for n in range(count)
    ]
    costs = list(cell_costs(config, cells, {0: ScanCounts.of(Manifest(tuple(rows)), config)}))
    assert not any(cost.unknown for cost in costs)
    folds, total = 5, sum(cost.flop for cost in costs)
    assert f"it is {folds * len(cells)} cells and {round(folds * total / 1e15, -2):.0f} PFLOP" in PAGE
    assert f"{folds * total / 30e12 / 3600:.0f} hours at 30 TFLOP/s" in PAGE.replace("\n", " ")
    assert f"up to {max(cost.memory_bytes for cost in costs) / 1e9:.0f} GB of its memory" in PAGE.replace("\n", " ")


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[1] == "benchmark"], ids=lambda w: w[3])
def test_its_settings_are_those_of_the_shipped_files(words: list[str]) -> None:
    sets = [word for before, word in pairwise(words) if before == "--set"]
    name = words[words.index("-c") + 1]
    config = load_config(MatrixConfig, CONFIGS / f"matrix_{name}.yaml", sets)
    cells = {cell.key.rpartition("/")[2]: cell for cell in plan(config)}
    for row in ("FAE", "RD") if sets else ():
        assert cells[row].settings["reconstructor"]["settings"]["weights"].endswith(".pth")
    diseases = {"ms", "wmh", "tumour", "stroke"} if name == "paper_more" else {"tumour", "stroke"}
    assert set(config.pathologies) == diseases
    assert config.published["SADM_res (stroke)"]["stroke"] == (47.64, 46.13)
