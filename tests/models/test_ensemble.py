"""Several detectors as one: what is averaged, what is kept, and what does not belong together."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from halebrain.core.errors import DataError
from halebrain.models.bundle import Bundle, ModelConfig, build_networks, load_bundle, save_bundle
from halebrain.models.card import model_card
from halebrain.models.ensemble import Ensemble, EnsembleMember, present_weight_names
from halebrain.models.joining import join_models
from halebrain.models.reconstruction import ReconstructorSpec
from halebrain.models.segmentation import SegmenterConfig

AE = {"channels": [8, 8], "latent": 4, "norm_groups": 4}


def model(seed: int, *, stage1: int = 0, segmenter: bool = True, preprocessing: Any = None, **settings: Any) -> Bundle:
    torch.manual_seed(stage1)
    config = ModelConfig(
        kind="detector" if segmenter else "reconstructor",
        reconstructor=ReconstructorSpec(name="ae", settings=AE),
        segmenter=SegmenterConfig(**({"channels": (8, 16), "patch": 2} | settings)) if segmenter else None,
        preprocessing=preprocessing or {},
        postprocessing={"residual_weight": seed / 10},
    )
    reconstructor, network = build_networks(config)
    if network is not None:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
        network.eval().requires_grad_(False)
    training = {"stage1": {"train_subjects": ["a"]}, "stage2": {"train_subjects": [f"s{seed}"], "val_subjects": []}}
    return Bundle(config, reconstructor.eval(), network, training, {"subjects": ["c"]}, sha256=str(seed))


def test_the_joined_model_gives_the_mean_and_is_read_back_the_same(tmp_path: Path) -> None:
    parts = [model(1), model(2, encoder="early", neighbours=(-1, 1)), model(3, streams=("image",))]
    joined = join_models(parts)
    assert joined.segmenter is not None
    image, reconstruction = torch.rand(2, 3, 32, 32), torch.rand(2, 1, 32, 32)
    each = [
        part.segmenter(image if part.segmenter.visible_neighbours else image[:, :1], reconstruction).sigmoid()
        for part in parts
        if part.segmenter is not None
    ]
    expected = torch.stack(each).mean(dim=0)
    torch.testing.assert_close(joined.segmenter(image, reconstruction).sigmoid(), expected)
    save_bundle(joined, tmp_path / "joined", card="# A card\n")
    again = load_bundle(tmp_path / "joined")
    assert again.segmenter is not None
    assert torch.equal(again.segmenter(image, reconstruction), joined.segmenter(image, reconstruction))
    assert again.config.postprocessing == parts[0].config.postprocessing
    assert again.calibration == {}
    assert again.sha256 not in {"1", "2", "3"}


def test_whom_any_of_them_saw_the_joined_one_has_seen() -> None:
    joined = join_models([model(1), model(2)])
    assert set(joined.seen_subjects("train_subjects")) == {"a", "s1", "s2"}
    assert list(joined.training) == ["stage1", "stage2", "stage2, segmenter 2"]


@pytest.mark.parametrize(
    ("other", "received"),
    [
        (model(2, stage1=1), "another reconstructor"),
        (model(2, preprocessing={"spacing_mm": 3.0}), "another preprocessing"),
        (model(2, segmenter=False), "without a segmenter"),
        (join_models([model(2), model(3)]), "a joined model"),
    ],
)
def test_what_does_not_belong_together_is_refused(other: Bundle, received: str) -> None:
    with pytest.raises(DataError, match=received):
        join_models([model(1), replace(other, path=Path("other"))])


def test_one_model_alone_cannot_be_joined() -> None:
    with pytest.raises(DataError, match="several models"):
        join_models([model(1)])


def specialists() -> tuple[list[Bundle], Bundle]:
    parts = []
    for seed, learned in ((1, ["t1"]), (2, ["T2w", "FLAIR"]), (3, ["T2w"])):
        part = model(seed, **({"encoder": "early", "neighbours": (-1,)} if seed == 2 else {}))
        part.training["stage2"]["modalities"] = learned
        parts.append(part)
    return parts, join_models(parts, by_contrast=True)


def test_joined_by_contrast_each_answers_for_what_it_learned(tmp_path: Path) -> None:
    parts, joined = specialists()
    save_bundle(joined, tmp_path / "joined", card="# A card\n")
    segmenter = load_bundle(tmp_path / "joined").segmenter
    assert segmenter is not None
    assert segmenter.contrasts_each == (("T1w",), ("FLAIR", "T2w"), ("T2w",))
    image, reconstruction = torch.rand(4, 2, 32, 32), torch.rand(4, 1, 32, 32)
    one, two, three = (
        part.segmenter(image if part.segmenter.visible_neighbours else image[:, :1], reconstruction)
        for part in parts
        if part.segmenter is not None
    )
    torch.testing.assert_close(segmenter(image, reconstruction, "T1w"), one)
    torch.testing.assert_close(segmenter(image, reconstruction, "FLAIR"), two)
    both = (two.sigmoid() + three.sigmoid()) / 2
    torch.testing.assert_close(segmenter(image, reconstruction, "T2w").sigmoid(), both)
    everyone = (one.sigmoid() + two.sigmoid() + three.sigmoid()) / 3
    for unknown in (None, "SWI"):
        torch.testing.assert_close(segmenter(image, reconstruction, unknown).sigmoid(), everyone)
    mixed = segmenter(image, reconstruction, ["FLAIR", "T1w", None, "T1w"]).sigmoid()
    expected = torch.stack([two[0].sigmoid(), one[1].sigmoid(), everyone[2], one[3].sigmoid()])
    torch.testing.assert_close(mixed, expected)


def test_one_for_the_rest_answers_for_what_no_other_learned_and_for_that_alone() -> None:
    parts, _ = specialists()
    joined = join_models(parts, by_contrast=True, rest=2)
    assert isinstance(joined.segmenter, Ensemble)
    assert joined.segmenter.contrasts_each == (("T1w",), ("FLAIR", "T2w"), ())
    assert [joined.segmenter.asked(name) for name in ("T1w", "T2w", "SWI", None)] == [(0,), (1,), (2,), (2,)]


def ensemble(*settings: dict[str, Any]) -> Ensemble:
    torch.manual_seed(0)
    return Ensemble([EnsembleMember(**({"channels": (8, 16)} | own)) for own in settings]).eval()


def test_several_networks_give_the_mean_of_their_probabilities_each_from_what_it_looks_at() -> None:
    early = {"encoder": "early"}
    together = ensemble(
        early | {"neighbours": (-1,)}, early | {"neighbours": (3, -1), "patch": 2}, {"streams": ("image",)}
    )
    assert together.visible_neighbours == (-1, 3)
    assert together.needs_reconstruction
    image, reconstruction = torch.rand(2, 3, 16, 16), torch.rand(2, 1, 16, 16)
    seen = [image[:, :2], image[:, [0, 2, 1]], image[:, :1]]
    each = [part(x, reconstruction).sigmoid() for part, x in zip(together.members, seen, strict=True)]
    torch.testing.assert_close(together(image, reconstruction).sigmoid(), torch.stack(each).mean(dim=0))
    assert len(together.all_logits(image, reconstruction)) == 1
    # Where all are sure, the logits stay numbers.
    for part in together.members:
        part.head.bias.data.fill_(-300.0)  # type: ignore[union-attr, operator]
    assert torch.isfinite(together(image, reconstruction)).all()


@pytest.mark.parametrize(
    ("contrasts", "asked"),
    [
        (((), ("T2w",)), {"T2w": (1,), "T1w": (0,), None: (0,)}),
        (((), ()), {"T2w": (0, 1)}),
        ((("T2w", "random"), ("T2w",)), {"T2w": (0, 1), "PDw": (0,), None: (0,)}),
        # T1 stands for T1 with contrast medium that no network was trained on.
        ((("T1w",), ("T2w",)), {"T1ce": (0,), "PDw": (0, 1)}),
        ((("T1w",), ("T1ce",)), {"T1ce": (1,)}),
    ],
)
def test_which_networks_are_used_for_a_contrast(
    contrasts: tuple[tuple[str, ...], ...], asked: dict[str | None, tuple[int, ...]]
) -> None:
    together = ensemble(*({"contrasts": names} for names in contrasts))
    assert {name: together.asked(name) for name in asked} == asked


def test_weights_of_a_checkpoint_of_an_earlier_version_are_found() -> None:
    weight = torch.zeros(1)
    former = dict.fromkeys(("module.aside.0.bias", "module.others.1.head.bias", "n_averaged"), weight)
    names = ["module.members.0.auxiliary_heads.0.bias", "module.members.2.head.bias", "n_averaged"]
    assert list(present_weight_names(former)) == names
    assert list(present_weight_names(dict.fromkeys(names, weight))) == names


def test_what_is_not_asked_does_not_learn() -> None:
    segmenter = specialists()[1].segmenter
    assert segmenter is not None
    segmenter.requires_grad_(True)
    segmenter(torch.rand(2, 2, 32, 32), torch.rand(2, 1, 32, 32), ["FLAIR", "FLAIR"]).sum().backward()
    learned = {name.split(".")[1] for name, weight in segmenter.named_parameters() if weight.grad is not None}
    assert learned == {"1"}


def test_who_answers_for_contrasts_must_say_which_it_learned() -> None:
    with pytest.raises(DataError, match="no contrast in its training summary"):
        join_models([model(1), model(2)], by_contrast=True)


def test_the_card_says_which_network_answers_for_what() -> None:
    parts, joined = specialists()
    assert "in 3 networks, for T1w, FLAIR and T2w, T2w" in model_card_line(joined)
    assert "in 3 networks, averaged" in model_card_line(join_models(parts))
    assert "networks" not in model_card_line(parts[0])


def model_card_line(bundle: Bundle) -> str:
    bare = replace(bundle, training={})
    return next(line for line in model_card(bare).splitlines() if line.startswith("- Segmenter"))
