import math
from pathlib import Path

import pytest

import halebrain
from halebrain.benchmarking.config import MatrixConfig
from halebrain.benchmarking.plan import chosen_cells, plan, reference_title
from halebrain.core.config import load_config, merged, parse_config
from halebrain.core.errors import ConfigError, UsageError
from small_matrix import DRAEM, PAIR

CONFIGS = Path(halebrain.__file__).parent / "configs"
RAW = {
    "seeds": [0, 1],
    "reconstructors": {
        "ddpm": {"settings": {"reconstructor": {"name": "ddpm"}}, "row": "DDPM"},
        "ae": {"settings": {"reconstructor": {"name": "ae"}}, "row": "AE"},
    },
    "segmenters": {
        "pair": PAIR | {"reconstructor": "ddpm", "each_pathology": ["stroke", "tumour"], "each_count": [1, None]},
        "draem": DRAEM,
    },
    "baselines": ["intensity rank", "atlas z-score"],
    "reference": "DDPM",
}


OTHER = {"reconstructor": "ddpm", "rows": {"segmenter": "other"}, "block": "II", "trained_on": "DRAEM"}
ALL = {"reconstructor": "ddpm", "settings": {"regime": "weak"}, "rows": {"segmenter": "all"}, "block": "V"}
TWO = {"regime": "both", "data": {"pathologies": ["ms", "stroke"]}}
CONTRAST = {"name": "fused − others", "first": "SADM_res", "second": ["AE", "DDPM"], "columns": "unseen"}


def config(**changes):
    return parse_config(MatrixConfig, merged(RAW, changes))


def test_the_cells_of_a_small_benchmark():
    cells = plan(config())
    assert len(cells) == 1 + 2 * (2 + 4 + 1)
    assert len({cell.key for cell in cells}) == len(cells)
    keys = [cell.key for cell in cells]
    for cell in cells:
        if cell.needs is not None:
            assert keys.index(cell.needs) < keys.index(cell.key)
    titles = {row.title for cell in cells for row in cell.rows.values()}
    assert {"DDPM", "AE", "DRAEM-Net (DRAEM)", "SADM_res (stroke)", "SADM_res (stroke, 1)"} <= titles
    weak = next(cell for cell in cells if cell.key == "fold0/seed1/pair-tumour-n1")
    assert weak.settings["data"]["pathologies"] == ["tumour"]
    assert (weak.settings["n_annotated"], weak.settings["seed"], weak.settings["subset_seed"]) == (1, 1, 1)


def test_a_part_of_the_cells_comes_with_what_it_needs():
    cells = plan(config())
    assert chosen_cells(cells, ()) == cells
    keys = [cell.key for cell in chosen_cells(cells, ("fold*/seed1/pair-stroke*", "fold0/baselines"))]
    assert keys == [
        *("fold0/baselines", "fold0/seed1/ddpm"),
        *("fold0/seed1/pair-stroke-n1", "fold0/seed1/pair-stroke"),
    ]
    with pytest.raises(UsageError, match=r"must match the key of a cell.*fold0/seed0/dpm.*fold0/seed0/ddpm"):
        chosen_cells(cells, ("fold0/seed0/dpm",))


def test_one_training_on_several_diseases_states_them():
    more = {"all": ALL | {"trained_on": "ms + stroke", "settings": TWO}, "any": ALL | {"trained_on": "every disease"}}
    titles = {row.title for cell in plan(config(segmenters=more)) for row in cell.rows.values()}
    assert {"all (ms + stroke)", "all (every disease)"} <= titles


def test_folds_multiply_everything(tmp_path):
    folds = [str(tmp_path / "a.tsv"), str(tmp_path / "b.tsv")]
    cells = plan(config(folds=folds))
    assert len(cells) == 2 * (1 + 2 * 7)
    assert {cell.fold for cell in cells} == {0, 1}


def test_what_is_trained_once_is_trained_with_the_first_seed_on_the_first_fold(tmp_path):
    folds = [str(tmp_path / "a.tsv"), str(tmp_path / "b.tsv")]
    once = {"reconstructors": {"ae": {"once": True}}, "segmenters": {"draem": {"once": True}}}
    keys = [cell.key for cell in plan(config(folds=folds, **once))]
    assert [key for key in keys if key.endswith(("ae", "draem"))] == ["fold0/seed0/ae", "fold0/seed0/draem"]
    assert sum(key.endswith("ddpm") for key in keys) == 4


def test_the_claim_is_put_to_five_contrasts_that_every_run_has():
    for name in ("cpu2", "cpu2_flair"):
        shipped = load_config(MatrixConfig, CONFIGS / f"matrix_{name}.yaml")
        stated = [entry.contrast for entry in shipped.contrasts]
        assert [(c.first, c.columns, c.margin) for c in stated] == [
            ("Unet_res", "seen", 0),
            ("Unet_res", "unseen", 0),
            ("SADM_res", "all", 0),
            ("Unet_res", "unseen", 0.02),
            ("SADM_res", "all", 0),
        ]
        cells = plan(shipped)
        for row in {name for c in stated for name in (c.first, *c.second)} - set(shipped.baselines):
            trained = {cell.seed for cell in cells for label in cell.rows.values() if label.name == row}
            assert trained == {0, 1, 2}, row
        assert shipped.cohort.patients * shipped.cohort.split_fractions[2] >= 60


def test_what_was_found_by_looking_is_stated_for_people_whom_nobody_looked_at():
    shipped = load_config(MatrixConfig, CONFIGS / "matrix_cpu2_flair_dae.yaml")
    stated = [entry.contrast for entry in shipped.contrasts]
    assert [(c.first, c.columns, c.margin) for c in stated] == [
        ("Unet_DAE", "seen", 0),
        ("Unet_DAE", "unseen", 0),
        ("SADM_DAE", "unseen", 0),
        ("SADM_DAE", "unseen", 0),
        ("Unet_DAE", "unseen", 0.02),
        ("SADM_DAE", "all", 0),
    ]
    assert shipped.modality == "FLAIR"


def test_the_reference_is_found_by_name_or_title():
    assert reference_title(config(), plan(config())) == "DDPM"
    title = config(reference="SADM_res (tumour)")
    assert reference_title(title, plan(title)) == "SADM_res (tumour)"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"reference": "DPM"}, "did you mean 'DDPM'"),
        ({"baselines": ["intensity rnk"]}, "intensity rank"),
        ({"segmenters": {"pair": {"reconstructor": "cddpm"}}}, "not defined under reconstructors"),
        ({"segmenters": {"pair": {"rows": {"sum": "x"}}}}, "rows"),
        ({"segmenters": {"pair": {"settings": {"regimes": "weak"}}}}, "regime"),
        ({"reconstructors": {"ae": {"settings": {"reconstructor": {"nam": "ae"}}}}}, "name"),
        ({"reconstructors": {"ae": {"row": "DDPM"}}}, "unique title"),
        # Each would share its row with a baseline, with another one that is trained once, or with its own other score.
        ({"reconstructors": {"ae": {"row": "intensity rank", "once": True}}}, "unique title, got intensity rank"),
        ({"segmenters": {n: DRAEM | {"once": True} for n in ("draem", "draem2")}}, "unique title, got DRAEM-Net"),
        ({"segmenters": {"draem": {"rows": {"fused": "DRAEM-Net"}, "once": True}}}, "unique title, got DRAEM-Net"),
        ({"segmenters": {"ddpm": OTHER}}, "unique name, got fold0/seed0/ddpm twice"),
        ({"segmenters": {"pair-stroke": OTHER}}, "unique name, got fold0/seed0/pair-stroke twice"),
        # Diseases that no row states would count as unseen.
        ({"segmenters": {"all": ALL}}, "must state their diseases.*without every annotated disease"),
        (
            {"segmenters": {"all": ALL | {"trained_on": "ms", "settings": TWO}}},
            r"must state their diseases, got trained_on: ms, without stroke",
        ),
        ({"seeds": [1, 1]}, "seeds"),
        ({"folds": ["a.tsv", "b.tsv", "a.tsv"]}, "folds must be different tables"),
        ({"contrasts": [{**CONTRAST, "second": "DPM"}]}, "contrast must name rows.*did you mean 'DDPM'"),
        ({"contrasts": [{**CONTRAST, "first": "SADM_res (stroke)"}]}, "without what they learned from"),
        ({"contrasts": [CONTRAST, CONTRAST]}, "unique name"),
        ({"contrasts": [{**CONTRAST, "first": "DRAEM-Net"}]}, "DRAEM-Net learns from DRAEM, columns: unseen"),
        ({"contrasts": [{**CONTRAST, "first": "AE", "columns": "seen"}]}, "AE learns from –, columns: seen"),
        ({"contrasts": [{**CONTRAST, "first": "AE", "second": "Unet_res"}]}, "Unet_res learns from stroke or tumour"),
        (
            {"contrasts": [CONTRAST], "segmenters": {"pair": {"each_count": [1, 2]}}},
            "SADM_res learns from few annotated subjects alone",
        ),
        ({"contrasts": [{**CONTRAST, "margn": 0.1}]}, "did you mean 'margin'"),
        ({"contrasts": [CONTRAST], "reconstructors": {"ae": {"once": True}}}, "needs 'AE' in every run"),
        ({"reconstructors": {"ddpm": {"once": True}}}, "trained more often than its reconstructor"),
        ({"segmenters": {"pair": {"settings_by_pathology": {"ms": {}}}}}, "not in each_pathology"),
        ({"segmenters": {"pair": {"settings_by_pathology": {"stroke": {"loop": {"step": 1}}}}}}, "steps"),
        ({"cohort": {"modalities": ["T1w"]}}, "modality or modalities of the benchmark"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(changes, word):
    with pytest.raises(ConfigError, match=word):
        plan(config(**changes))


@pytest.mark.parametrize(
    "name", ["tiny", "cpu", "gpu", "later", "paper", "paper_more", "cpu2", "cpu2_flair", "cpu2_flair_dae", "healing"]
)
def test_the_shipped_files_can_be_run_as_they_are(name):
    config = load_config(MatrixConfig, CONFIGS / f"matrix_{name}.yaml")
    cells = plan(config)
    titles = {row.title for cell in cells for row in cell.rows.values()}
    assert set(config.published) <= titles
    if name == "later":
        assert {"REFLECT", "IterMask", "UNA", "SADM_res (fluid)", "atlas z-score signed"} <= titles
    if name == "paper":
        assert len(titles - {"intensity rank"}) == 22
        assert set(config.published) == titles - {"intensity rank"}


def test_the_file_of_the_paper_says_what_the_paper_says():
    cells = {cell.key: cell for cell in plan(load_config(MatrixConfig, CONFIGS / "matrix_paper.yaml"))}
    assert cells["fold0/seed0/cDDPM"].settings["loop"]["lr"] == 1e-5
    assert cells["fold0/seed0/stage1"].settings["loop"]["lr"] == 1e-4
    assert cells["fold0/seed0/DRAEM-pair"].settings["loop"]["lr"] == 5e-5
    pair = cells["fold0/seed0/weak-pair-stroke"].settings
    assert pair["segmenter"]["streams"] == ["residual", "image"]
    assert pair["segmenter"]["channels"] == [64, 128, 256]
    assert pair["data"]["pathologies"] == ["stroke"]
    assert cells["fold0/seed0/stage1"].settings["loop"]["steps"] == 1600 * math.ceil(358 / 32)
    assert cells["fold0/seed0/DRAEM-pair"].settings["loop"]["steps"] == 600 * math.ceil(358 / 32)
    for kind in ("image", "pair"):
        weak = {name: cells[f"fold0/seed0/weak-{kind}-{name}"].settings for name in ("tumour", "stroke")}
        assert weak["tumour"]["loop"]["steps"] == 600 * math.ceil(90 / 32)
        assert weak["stroke"]["loop"]["steps"] == 600 * math.ceil(169 / 32)
        assert all(own["lesion_fraction"] == 0 for own in weak.values()), "slices are drawn uniformly"
    for name in ("cDDPM", "stage1"):
        assert (
            cells[f"fold0/seed0/{name}"].settings["pretraining"] == cells["fold0/seed0/cDDPM"].settings["pretraining"]
        )
        assert cells[f"fold0/seed0/{name}"].settings["pretraining"]["loop"]["steps"] == 1200 * math.ceil(358 / 32)
    assert all(cell.settings["loop"]["clip_norm"] is None for cell in cells.values() if cell.kind != "baseline")
