"""One network of a joined model alone is what it was before it was joined."""

from dataclasses import replace

import pytest
import torch

from halebrain.core.errors import ConfigError
from halebrain.models.bundle import Bundle, ModelConfig, build_networks
from halebrain.models.joining import join_models, part_for
from halebrain.models.reconstruction import ReconstructorSpec
from halebrain.models.segmentation import Segmenter, SegmenterConfig

AE = {"channels": [8, 8], "latent": 4, "norm_groups": 4}


def model(seed: int, *modalities: str, **settings: object) -> Bundle:
    torch.manual_seed(0)
    config = ModelConfig(
        kind="detector",
        reconstructor=ReconstructorSpec(name="ae", settings=AE),
        segmenter=SegmenterConfig.model_validate({"channels": (8, 16), "patch": 2} | settings),
        preprocessing={},
        postprocessing={},
    )
    reconstructor, network = build_networks(config)
    assert network is not None
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed))
    training = {"stage1": {"train_subjects": ["a"]}, "stage2": {"train_subjects": [f"s{seed}"]}}
    training["stage2"]["modalities"] = list(modalities)
    return Bundle(config, reconstructor.eval(), network.eval(), training, {"subjects": ["c"]}, sha256=str(seed))


def joined_and_parts() -> tuple[Bundle, list[Bundle]]:
    sees_more = {"encoder": "early", "neighbours": (-1, 1)}
    parts = [model(1, "T1w"), model(2, "T2w", **sees_more), model(3, "T2w"), model(4, "T1w", "T2w", "FLAIR")]
    return join_models(parts, by_contrast=True, rest=3), parts


@pytest.mark.parametrize(
    ("modalities", "place"),
    [(("T1w",), 0), (("t1",), 0), (("T1ce",), 0), (("T2w",), 1), (("FLAIR",), 3), (("FLAIR", "PDw"), 3), ((), 3)],
)
def test_it_is_the_first_network_that_answers_as_it_was(modalities: tuple[str, ...], place: int) -> None:
    joined, parts = joined_and_parts()
    part, before = part_for(joined, modalities), parts[place]
    assert part.segmenter is not None
    assert before.segmenter is not None
    assert isinstance(part.segmenter, Segmenter)
    assert part.config.segmenter == part.segmenter.config == before.config.segmenter
    assert part.config == before.config
    weights = part.segmenter.state_dict()
    assert weights.keys() == before.segmenter.state_dict().keys()
    assert all(torch.equal(weight, before.segmenter.state_dict()[name]) for name, weight in weights.items())
    assert part.training == before.training
    assert part.calibration == {}, "thresholds belong to all networks together"


def test_contrasts_of_different_networks_have_none_in_common() -> None:
    with pytest.raises(ConfigError, match=r"T1w, T2w, which have their own networks.*data.modalities=\[T1w\]"):
        part_for(joined_and_parts()[0], ("T1w", "T2w"))


def test_every_contrast_needs_a_network_of_the_rest_or_networks_that_are_averaged() -> None:
    parts = [model(1, "T1w"), model(2, "T2w")]
    with pytest.raises(ConfigError, match=r"every contrast, which have their own networks.*data.modalities=\[T1w\]"):
        part_for(join_models(parts, by_contrast=True), ())
    first = part_for(join_models(parts), ())
    assert first.training == parts[0].training


def test_what_came_after_the_joining_is_told_of_every_part() -> None:
    joined, parts = joined_and_parts()
    after = {"tuning": {"val_subjects": ["t"]}, "adaptation": {"train_subjects": ["d"]}}
    for name, part in (("T1w", parts[0]), ("FLAIR", parts[3])):
        assert part_for(replace(joined, training=joined.training | after), (name,)).training == part.training | after


def test_a_tuning_before_and_one_after_the_joining_are_both_told() -> None:
    parts = [model(1, "T1w"), model(2, "T2w")]
    for part in parts:
        part.training["tuning"] = {"val_subjects": [f"of {part.sha256}"]}
    joined = join_models(parts, by_contrast=True)
    joined.training["tuning"] = {"val_subjects": ["of 1", "of all"]}
    assert set(part_for(joined, ("T2w",)).seen_subjects("val_subjects")) == {"of 1", "of all", "of 2"}


def test_a_model_of_one_network_or_of_none_stays_as_it_is() -> None:
    one = model(1, "T1w")
    assert part_for(one, ("T2w",)) is one
    none = replace(one, segmenter=None)
    assert part_for(none, ()) is none
