"""What a benchmark would cost: operations against closed forms and the real thing, and how cells add up."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from halebrain.benchmarking.config import MatrixConfig
from halebrain.benchmarking.cost import ScanCounts, _stage, cell_costs, flop_of, network_cost
from halebrain.benchmarking.plan import chosen_cells, plan
from halebrain.core.config import merged, parse_config
from halebrain.io.manifest import Manifest, ScanRecord
from small_matrix import AE, DRAEM, MATRIX, PAIR, SEGMENTER, ddpm, joint

UNET = {"channels": [8, 8], "blocks_per_level": 1, "patch": 4, "norm_groups": 4, "attention_head_channels": 8}
LOOP = {"steps": 10, "batch_size": 4, "validate_every": 4, "validation_batches": 3, "precision": "32-true"}
RAW = MATRIX | {
    "pathologies": ["stroke"],
    "seeds": [0, 1],
    "reconstructor_defaults": {"loop": LOOP},
    "segmenter_defaults": {"loop": LOOP, "segmenter": SEGMENTER},
    "joint_defaults": joint(UNET, LOOP),
    "reconstructors": {
        "ddpm": ddpm(UNET),
        "fae": {"settings": {"reconstructor": {"name": "fae", "settings": {"backbone_width": 8}}}, "row": "FAE"},
        "hidden": {"settings": AE["settings"]},
    },
    "segmenters": {"pair": PAIR | {"reconstructor": "ddpm", "each_pathology": ["stroke"]}, "draem": DRAEM},
    "reference": "DDPM",
}


def config(**changes):
    return parse_config(MatrixConfig, merged(RAW, changes))


def costs(config, *names, scans=None, done=frozenset()):
    """Return the costs of the cells of these names and of those that they need; without names of all."""
    cells = chosen_cells(plan(config), [f"*/{name}" for name in names])
    found = cell_costs(config, cells, {0: scans or ScanCounts(10)}, done)
    return {cell.key: cell for cell in found}


def test_a_convolution_and_its_gradients_by_closed_form():
    layer = nn.Conv2d(3, 5, 3, padding=1)
    image = torch.ones(2, 3, 8, 6, requires_grad=True)
    forwards = 2 * 3 * 5 * 9 * (8 * 6) * 2  # a product and a sum: inputs × outputs × window × pixels × slices
    assert flop_of(lambda: layer(image)) == forwards
    with torch.inference_mode():
        assert flop_of(lambda: layer(torch.ones(2, 3, 8, 6))) == forwards
    assert flop_of(lambda: layer(image).sum().backward()) == 3 * forwards
    linear = nn.Linear(7, 4)
    assert flop_of(lambda: linear(torch.ones(2, 7))) == 2 * 7 * 4 * 2


@pytest.mark.slow
def test_the_operations_of_a_stage_are_those_that_it_really_does():
    settings = config()
    cells = {cell.key: cell for cell in plan(settings)}
    below = cells["fold0/seed0/ddpm"]
    for cell, under in ((below, None), (cells["fold0/seed0/pair-stroke"], below), (cells["fold0/seed0/draem"], None)):
        stage, _ = _stage(cell, under, settings)
        with FlopCounterMode(display=False) as real:
            stage("train", 0).backward()
        assert network_cost(cell, under, settings).step == real.get_total_flops() // 2


@pytest.mark.slow
def test_steps_validations_levels_and_scans_multiply():
    settings = config()
    found, cells = costs(settings), {cell.key: cell for cell in plan(settings)}
    below, pair = cells["fold0/seed0/ddpm"], cells["fold0/seed0/pair-stroke"]
    one, two = network_cost(below, None, settings), network_cost(pair, below, settings)
    # 10 steps of 4 slices; validations after 4, 8 and 10 steps, of 3 batches.
    assert found[below.key].train == 10 * 4 * one.step + 3 * 3 * 4 * one.check
    assert found[below.key].evaluate == 10 * 24 * one.reconstruct
    assert one.n_levels == 2
    assert found[pair.key].evaluate == 10 * 24 * two.segment, "its reconstructions are there from the cell below"
    assert found["fold0/seed0/hidden"].evaluate == 0, "it has no row"
    assert found["fold0/seed1/draem"].train == found["fold0/seed0/draem"].train > 0
    assert found["fold0/seed0/fae"].evaluate > 0
    assert found["fold0/baselines"].flop == 0
    longer = costs(config(reconstructor_defaults={"loop": {"steps": 20}}), "ddpm")
    assert longer[below.key].train > 1.8 * found[below.key].train


@pytest.mark.slow
def test_finished_cells_are_known_and_their_reconstructions_are_made_again():
    settings = config(seeds=[0])
    found = costs(settings, "pair-stroke", done=frozenset({"fold0/seed0/ddpm"}))
    assert [key for key, cell in found.items() if cell.done] == ["fold0/seed0/ddpm"]
    both = costs(settings, "pair-stroke")
    more = found["fold0/seed0/pair-stroke"].evaluate - both["fold0/seed0/pair-stroke"].evaluate
    assert more == found["fold0/seed0/ddpm"].evaluate


def test_pairs_made_once_need_no_reconstruction_at_each_step():
    settings = config(seeds=[0])
    cells = {cell.key: cell for cell in plan(settings)}
    cost = network_cost(cells["fold0/seed0/pair-stroke"], cells["fold0/seed0/ddpm"], settings)
    assert 0 < cost.frozen < cost.step
    pairs = {"annotated": 5, "synthetic": 7, "validation": 3}
    once = config(seeds=[0], segmenters={"pair": {"settings": {"pairs": pairs}}})
    scans = ScanCounts(10, {("train", "stroke"): 6, ("val", "stroke"): 2, ("train", "healthy"): 50, ("train", "ms"): 9})
    made = 5 * 6 + 3 * 2
    expected = 10 * 4 * (cost.step - cost.frozen) + 3 * 3 * 4 * (cost.check - cost.frozen) + made * cost.frozen
    assert costs(once, "pair-stroke", scans=scans)["fold0/seed0/pair-stroke"].train == expected


def test_memory_grows_with_the_batch_and_holds_five_copies_of_the_weights():
    def memory(size):
        settings = config(seeds=[0], reconstructor_defaults={"loop": {"batch_size": size}})
        return costs(settings, "hidden")["fold0/seed0/hidden"].memory_bytes

    (cell,) = [cell for cell in plan(config(seeds=[0])) if cell.key.endswith("hidden")]
    weights = sum(p.numel() for p in _stage(cell, None, config())[0].trained.parameters()) * 4
    activations = memory(8) - memory(4)
    assert activations > 0
    assert memory(4) == 5 * weights + activations
    half = costs(config(seeds=[0], reconstructor_defaults={"loop": {"precision": "16-mixed"}}), "hidden")
    assert half["fold0/seed0/hidden"].memory_bytes < memory(4)


@pytest.mark.slow
def test_an_encoder_is_pretrained_once_a_fold_and_seed():
    encoder = {"blocks": [1, 1], "width": 8, "features": 16, "norm": "group", "patch": 4}
    spec = {"name": "cddpm", "settings": {"unet": UNET, "encoder": encoder, "test_levels": [300]}}
    first = {"pretraining": {"cell": 8, "loop": {**LOOP, "steps": 5}}}

    def total(pretraining):
        own = {"settings": {"reconstructor": spec, **pretraining}}
        changes = {"reconstructors": {"one": {**own, "row": "One"}, "two": own}, "segmenters": {}}
        return [cell.train for key, cell in costs(config(**changes), "one", "two").items()]

    plain, with_encoder = total({}), total(first)
    more = [after - before for before, after in zip(plain, with_encoder, strict=True)]
    assert more[0] == more[2] > 0
    assert more[1] == more[3] == 0
    longer = total({"pretraining": {"cell": 8, "loop": {**LOOP, "steps": 5, "validation_batches": 6}}})
    checks = longer[0] - with_encoder[0]
    assert 0 < checks < more[0], "steps and validations both count"


def test_scans_are_counted_by_use():
    def rows(split, condition, count):
        lesion = None if condition == "healthy" else Path("l")
        return [
            ScanRecord(f"{split}{condition}{n}", Path("i"), "FLAIR", split=split, pathology=condition, lesion=lesion)
            for n in range(count)
        ]

    whole = [*rows("train", "healthy", 9), *rows("val", "healthy", 2), *rows("test", "healthy", 4)]
    whole += [*rows("val", "stroke", 3), *rows("test", "stroke", 5), *rows("test", "ms", 7)]
    whole += [replace(rows("test", "stroke", 1)[0], subject="bare", lesion=None)]
    manifest = Manifest(tuple(whole))
    assert ScanCounts.of(manifest, config()).evaluated == 2 + 4 + 3 + 5
    assert ScanCounts.of(manifest, config(synthetic={"name": "blobs"})).evaluated == 2 * (2 + 4) + 3 + 5
    counts = ScanCounts.of(manifest, config())
    assert (counts.annotated("test", None), counts.annotated("test", ["stroke"])) == (12, 5)
    cohort = {"healthy": 20, "patients": 10, "pathologies": ["stroke", "ms"], "split_fractions": [0.5, 0.2, 0.3]}
    virtual = ScanCounts.of_cohort(config(cohort=cohort))
    assert virtual.evaluated == 4 + 6 + 2 + 3
    assert virtual.learned["train", "healthy"] == 10


def test_a_cell_that_cannot_be_built_is_named_with_the_reason():
    found = costs(config(seeds=[0], preprocessing={"shape": [30, 32, 24]}), "ddpm")
    assert "30" in found["fold0/seed0/ddpm"].unknown
    assert found["fold0/seed0/ddpm"].flop == 0
