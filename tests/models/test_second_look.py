"""A second look: what is doubted is filled, slice by slice, and nothing else changes."""

from dataclasses import replace

import pytest
import torch

from halebrain.core.config import parse_config
from halebrain.core.errors import DataError
from halebrain.models.bundle import Bundle, ModelConfig, build_networks, load_bundle, save_bundle
from halebrain.models.reconstruction import ReconstructorSpec
from halebrain.models.reconstruction.second_look import SecondLook, SecondLookSettings
from halebrain.models.second_pass import with_second_look
from halebrain.models.segmentation import SegmenterConfig
from halebrain.training.segmenter import _of_reconstructor
from halebrain.workflows.models import add_second_look
from halebrain.workflows.settings import SecondLookOptions

UNET = {"channels": [8, 8], "blocks_per_level": 1, "patch": 4, "norm_groups": 4, "attention_head_channels": 0}
SETTINGS = {
    "finder": {"name": "anoddpm", "settings": {"unet": UNET}},
    "doubter": {"channels": [8, 16], "norm_groups": 4, "patch": 2},
    "filler": {"unet": UNET},
}


def test_slices_without_doubt_need_no_filler_and_the_others_are_what_it_fills(monkeypatch):
    torch.manual_seed(0)
    model = SecondLook(parse_config(SecondLookSettings, SETTINGS, where="test")).eval()
    image = torch.rand(4, 1, 16, 16) * 0.8 + 0.1
    doubted = torch.zeros_like(image, dtype=torch.bool)
    doubted[1, :, 2:6, 2:6] = doubted[3, :, 9:12, 3:8] = True
    monkeypatch.setattr(model, "doubted", lambda *_: doubted)
    filled, fill = [], model.filler.fill
    monkeypatch.setattr(model.filler, "fill", lambda own, hole: filled.append(len(own)) or fill(own, hole))
    with torch.inference_mode():
        found = model.reconstruct(image, level=300, seeds=torch.arange(4))
        expected = fill(image, doubted)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert torch.equal(found[~doubted], image[~doubted])
    assert (found[doubted] != image[doubted]).any()
    assert filled == [2]
    doubted.zero_()
    assert model.reconstruct(image, level=300, seeds=torch.arange(4)) is image
    assert filled == [2]


def test_a_model_whose_segmenter_doubts_begins_from_the_finder_and_fills_at_the_end():
    torch.manual_seed(0)
    model = SecondLook(parse_config(SecondLookSettings, SETTINGS | {"doubter": None}, where="test")).eval()
    image = torch.rand(2, 1, 16, 16) * 0.8 + 0.1
    probability = torch.zeros_like(image)
    probability[0, 0, 4:6, 4:6] = 0.06
    with torch.inference_mode():
        first = model.reconstruct(image, level=300, seeds=torch.arange(2))
        torch.testing.assert_close(first, model.finder.reconstruct(image, level=300, seeds=torch.arange(2)))
        second = model.second_pass(image, probability)
    assert second is not None
    inside = torch.zeros_like(image, dtype=torch.bool)
    inside[0, 0, 2:8, 2:8] = True  # two pixels around
    assert torch.equal(second[~inside], image[~inside])
    assert (second[0] != image[0]).any()


def test_one_that_doubts_itself_has_no_second_pass():
    model = SecondLook(parse_config(SecondLookSettings, SETTINGS, where="test"))
    image = torch.rand(1, 1, 16, 16)
    assert model.second_pass(image, image) is None


def bundle(name, training):
    detects = name != "inpainting"
    config = ModelConfig(
        kind="detector" if detects else "reconstructor",
        reconstructor=ReconstructorSpec(name=name, settings={"unet": UNET}),
        segmenter=SegmenterConfig(**SETTINGS["doubter"]) if detects else None,
    )
    reconstructor, segmenter = build_networks(config)
    return Bundle(config, reconstructor, segmenter, training, {}, sha256=f"{name} {training}")


def test_an_inpainter_of_another_second_look_brings_whom_it_learned_from():
    inpainter = bundle("inpainting", {"stage1": {"train_subjects": ["painted"]}})
    first = bundle("anoddpm", {"stage1": {"train_subjects": ["a"]}, "stage2": {"train_subjects": ["b"]}})
    second = bundle("ddpm", {"stage1": {"train_subjects": ["c"]}, "stage2": {"train_subjects": ["d"]}})
    donor = with_second_look(first, inpainter, doubt=0.1, grow=2)
    assert set(donor.seen_subjects("train_subjects")) == {"a", "b", "painted"}
    taken = with_second_look(second, donor, doubt=0.1, grow=2)
    assert taken.seen_subjects("train_subjects") == {"c": "stage1", "d": "stage2", "painted": "filler"}
    # A segmenter that is trained on its reconstructor has seen what that learned from, and no more.
    assert set(_of_reconstructor(taken)[0]) == {"stage1", "filler"}


@pytest.mark.parametrize("further", ["encoder", "stage1 before"])
def test_what_an_inpainter_began_with_stays_on_record_but_for_the_detector_itself(further):
    detector = bundle("ddpm", {"stage1": {"train_subjects": ["c"]}, "stage2": {"train_subjects": ["d"]}})
    start = {"sha256": detector.sha256, **detector.training, further: {"train_subjects": ["e"]}}
    inpainter = bundle("inpainting", {"stage1": {"train_subjects": ["painted"], "start": start}})
    training = with_second_look(detector, inpainter, doubt=0.1, grow=2).training["filler"]
    assert training == {"train_subjects": ["painted"], "start": {further: {"train_subjects": ["e"]}}}


def test_an_inpainter_that_was_not_trained_alone_is_refused():
    detector = bundle("ddpm", {"stage1": {"train_subjects": ["c"]}, "stage2": {"train_subjects": ["d"]}})
    with pytest.raises(DataError, match="not trained alone"):
        with_second_look(detector, bundle("inpainting", {"joint": {"train_subjects": ["a"]}}), doubt=0.1, grow=2)


SUMMARY = {"config": {"loop": {"steps": 1, "batch_size": 1}, "seed": 0}, "step": 1, "validation_loss": 0.0}
SUMMARY |= {"seconds": 1.0, "device": "cpu", "manifest_sha256": "0" * 64, "modalities": []}
SUMMARY |= {"train_subjects": ["a"], "val_subjects": []}


def test_rounded_weights_of_a_detector_have_no_thresholds_of_others(tmp_path):
    stored = {"default": "ml:1", "thresholds": {}, "subjects": []}
    detector = replace(bundle("ddpm", {"stage1": SUMMARY, "stage2": SUMMARY}), calibration=stored)
    save_bundle(detector, tmp_path / "whole", card="")
    save_bundle(detector, tmp_path / "halved", card="", half=True)
    save_bundle(bundle("inpainting", {"stage1": SUMMARY}), tmp_path / "inpainter", card="")

    def kept(model, *, half):
        out = tmp_path / f"{model} {half}"
        add_second_look(tmp_path / model, out, SecondLookOptions(filler=tmp_path / "inpainter", half=half))
        return load_bundle(out).calibration

    assert kept("whole", half=False) == kept("halved", half=True) == stored
    assert kept("whole", half=True) == {}
