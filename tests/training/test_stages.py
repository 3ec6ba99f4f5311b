"""The two stages: what is learned, what stays frozen, and what a batch is made of."""

import csv
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from halebrain.core.config import parse_config
from halebrain.core.errors import ConfigError
from halebrain.core.types import TEMPLATE_SPACE
from halebrain.data.augment import PairAugmentationConfig
from halebrain.data.slices import DataConfig, SliceStore, build_store
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.nifti import write_volume
from halebrain.models.reconstruction import Reconstructor, build_reconstructor
from halebrain.models.segmentation import Segmenter, SegmenterConfig
from halebrain.preprocessing.geometry import working_grid
from halebrain.preprocessing.pipeline import PreprocessingConfig
from halebrain.training.batch_sampling import open_slices
from halebrain.training.loop import train
from halebrain.training.loop_config import LoopConfig
from halebrain.training.losses import LossConfig
from halebrain.training.segmenter import SegmenterStage, _open, _sources
from halebrain.training.segmenter_config import SegmenterTraining

# Lightning warns about the machine, not about the run.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning.*")

PLAIN = PairAugmentationConfig(gamma=0, bias_field=0, blur=0, ghosting=0)
SIZE = SegmenterConfig(channels=(8, 16), patch=2)


def reconstructor() -> Reconstructor:
    unet = {"channels": [8, 8], "blocks_per_level": 1, "patch": 4, "norm_groups": 4, "attention_head_channels": 0}
    torch.manual_seed(1)
    built = build_reconstructor("ddpm", {"unet": unet, "noise": "gaussian"})
    return built.eval().requires_grad_(False)


def flat_store(value: float, *, lesion: bool) -> SliceStore:
    labels = np.zeros((6, 32, 32), dtype=np.uint8)
    labels[:, 4:28, 4:28] = 1
    if lesion:
        labels[:, 10:16, 10:16] = 3
    images = (value * (labels > 0)).astype(np.float16)
    record = ScanRecord(subject="x", image=Path("x.nii"), modality="T1w")
    return SliceStore((images,), (labels,), (record,))


def make_stage(
    regime: str,
    *,
    batch_size: int = 8,
    fraction: float = 0.25,
    segmenter: SegmenterConfig = SIZE,
    frozen: Reconstructor | None = None,
) -> SegmenterStage:
    config = SegmenterTraining(
        regime=regime,
        annotated_fraction=fraction,
        segmenter=segmenter,
        augmentation=PLAIN,
        loop=LoopConfig(batch_size=batch_size, precision="32-true"),
    )
    healthy, annotated = (
        replace(store, neighbours=segmenter.neighbours)
        for store in (flat_store(0.3, lesion=False), flat_store(0.75, lesion=True))
    )
    stores = {
        "synthetic": {"train": healthy, "val": healthy},
        "annotated": {"train": annotated, "val": annotated},
    }
    torch.manual_seed(0)
    return SegmenterStage(Segmenter(segmenter), frozen or reconstructor(), stores, config)


@pytest.mark.parametrize(("regime", "annotated"), [("synthetic", 0), ("weak", 8), ("both", 2)])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_batch_is_made_as_configured(regime: str, annotated: int, split: str) -> None:
    stage = make_stage(regime)
    seen: list[torch.Tensor] = []
    real = stage.trained.all_logits
    stage.trained.all_logits = lambda image, reconstruction: (seen.append(image), real(image, reconstruction))[1]
    for step in range(3):
        assert torch.isfinite(stage(split, step))
    for image in seen:
        assert image.shape == (8, 1, 32, 32)
        brain = image[:, 0, 6:26, 6:26]
        is_annotated = (brain - 0.75).abs().amax(dim=(1, 2)) < 1e-3
        assert int(is_annotated.sum()) == annotated
        # The others are the healthy scan, outside its drawn anomaly.
        healthy = brain[~is_annotated]
        assert ((healthy - 0.3).abs() < 1e-3).flatten(1).any(dim=1).all()
    if regime != "weak":
        changed = [((image[:, 0, 6:26, 6:26] - 0.3).abs() > 0.02) & (image[:, 0, 6:26, 6:26] < 0.749) for image in seen]
        assert any(c.any() for c in changed)


def test_each_slice_of_a_batch_has_a_level_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = reconstructor()
    stage = make_stage("weak", frozen=frozen)
    seen: list[int] = []
    real = frozen.reconstruct_each

    def watch(image: torch.Tensor, *, levels: list[int], seeds: torch.Tensor) -> torch.Tensor:
        seen.extend(levels)
        return real(image, levels=levels, seeds=seeds)

    monkeypatch.setattr(frozen, "reconstruct_each", watch)
    for step in range(2):
        stage("train", step)
    assert len(seen) == 2 * 8
    assert len(set(seen)) > 12, "sixteen draws out of a thousand rarely meet"


def test_neighbours_are_seen_by_the_segmenter_and_not_by_the_reconstructor(monkeypatch: pytest.MonkeyPatch) -> None:
    seeing = SegmenterConfig(channels=(8, 16), patch=2, encoder="early", neighbours=(-1, 1))
    frozen = reconstructor()
    stage = make_stage("both", segmenter=seeing, frozen=frozen)
    given: list[torch.Tensor] = []

    def copy_input(image: torch.Tensor, **_others: object) -> torch.Tensor:
        given.append(image.clone())
        return image

    monkeypatch.setattr(frozen, "reconstruct_each", copy_input)
    seen: list[torch.Tensor] = []
    real = stage.trained.all_logits
    stage.trained.all_logits = lambda image, healthy: (seen.append(image), real(image, healthy))[1]
    store = stage.draw.samplers["val"]["annotated"].store
    ramp = (1 + np.arange(6, dtype=np.float16)[:, None, None] / 10).astype(np.float16)
    store.__dict__["images"] = (store.images[0] * ramp,)
    for split in ("train", "val"):
        assert torch.isfinite(stage(split, 0))
    assert {tensor.shape for tensor in given} == {(8, 1, 32, 32)}
    # The annotated slices of "val" come last, as they are: at one place each slice shows which it is.
    value = seen[1][-2:, :, 20, 20].numpy()
    heights = [float(slices[20, 20]) for slices in store.images[0]]
    for shown in value:
        place = int(np.argmin(np.abs(np.array(heights) - shown[0])))
        beside = [heights[place + k] if 0 <= place + k < 6 else 0.0 for k in (-1, 1)]
        np.testing.assert_allclose(shown[1:], beside, atol=1e-3)
    torch.testing.assert_close(given[1], seen[1][:, :1])


@pytest.mark.parametrize(("split", "moves"), [("train", True), ("val", False)])
def test_pairs_are_warped_after_the_reconstruction_and_in_training_only(
    split: str, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = reconstructor()
    stage = make_stage("weak", frozen=frozen)
    stage.config = stage.config.model_copy(update={"augmentation": PLAIN.model_copy(update={"warp": 1.0})})
    given: list[torch.Tensor] = []

    def copy_input(image: torch.Tensor, **_others: object) -> torch.Tensor:
        given.append(image.clone())
        return image

    monkeypatch.setattr(frozen, "reconstruct_each", copy_input)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    real = stage.trained.all_logits
    stage.trained.all_logits = lambda image, healthy: (seen.append((image, healthy)), real(image, healthy))[1]
    stage(split, 0)
    still = flat_store(0.75, lesion=True)
    assert bool((given[0][:, 0, 6:26, 6:26] == torch.from_numpy(still.images[0][0, 6:26, 6:26].astype("f4"))).all())
    image, reconstruction = seen[0]
    assert torch.equal(image, reconstruction), "both are moved alike"
    assert torch.equal(image, given[0]) is not moves


def test_same_step_same_loss_and_other_steps_differ() -> None:
    one, two = make_stage("both"), make_stage("both")
    losses = [float(stage("train", step).detach()) for stage, step in ((one, 3), (two, 3), (one, 4))]
    assert losses[0] == losses[1] != losses[2]


def test_the_reconstructor_stays_as_it_is(tmp_path: Path) -> None:
    stage = make_stage("both")
    frozen = stage._frozen[0]
    before = {k: v.clone() for k, v in frozen.state_dict().items()}
    start = {k: v.clone() for k, v in stage.trained.state_dict().items()}
    trained = {id(p) for p in stage.parameters()}
    settings = LoopConfig(steps=3, batch_size=8, lr=1e-2, precision="32-true", validation_batches=1)
    train(stage, settings, tmp_path, fabric=Fabric(accelerator="cpu", devices=1, precision="32-true"), name="t")
    assert not trained & {id(p) for p in frozen.parameters()}
    assert all(p.grad is None and not p.requires_grad for p in frozen.parameters())
    assert not frozen.training
    for key, value in frozen.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert any(not torch.equal(v, start[k]) for k, v in stage.trained.state_dict().items())


def test_the_dice_term_is_added() -> None:
    losses = []
    for weight in (0.0, 1.0, 2.0):
        stage = make_stage("weak")
        stage.config = stage.config.model_copy(update={"loss": LossConfig(dice=weight)})
        losses.append(float(stage("train", 0).detach()))
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-4)
    assert 0 < losses[1] - losses[0] < 1


def test_few_annotated_scans_are_nested_and_leave_validation_alone(tmp_path: Path) -> None:
    def record(n: int, split: str, pathology: str) -> ScanRecord:
        lesion = None if pathology == "healthy" else tmp_path / "l.nii"
        return ScanRecord(
            f"{pathology}{n}", tmp_path / "i.nii", "FLAIR", lesion=lesion, split=split, pathology=pathology
        )

    rows = [
        record(n, split, p)
        for p in ("healthy", "ms")
        for split, r in (("train", range(8)), ("val", range(8, 11)))
        for n in r
    ]
    manifest = Manifest(tuple(rows))
    found = {}
    for regime, count in (("weak", 2), ("weak", 5), ("both", 5), ("synthetic", None), ("weak", None)):
        config = SegmenterTraining(regime=regime, n_annotated=count)
        found[regime, count] = {
            k: (len(m.split("train")), len(m.split("val"))) for k, m in _sources(config, manifest).items()
        }
    assert found["weak", 2] == {"annotated": (2, 3)}
    assert found["both", 5] == {"synthetic": (8, 3), "annotated": (5, 3)}
    assert found["synthetic", None] == {"synthetic": (8, 3)}
    assert found["weak", None] == {"annotated": (8, 3)}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n_annotated": 5}, "n_annotated selects annotated scans"),
        ({"data": {"pathologies": ["ms"]}}, "data.pathologies selects annotated scans"),
        ({"regime": "weak", "pairs": {}, "data": {"sampling": "level"}}, "data.sampling level needs pairs null"),
        ({"regime": "both", "annotated_fraction": 0.01}, "at least one synthetic and one annotated slice"),
        ({"regime": "both", "loop": {"micro_batches": 32}}, r"in a \(micro-\)batch of 1"),
    ],
)
def test_what_would_have_no_effect_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config(SegmenterTraining, settings)


def write_blobs(folder: Path, config: PreprocessingConfig) -> Manifest:
    grid = working_grid(config.shape, config.spacing_mm)
    i, j, k = np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij")
    brain = (i - 15.5) ** 2 + (j - 15.5) ** 2 < 13**2
    records = []
    for number, (x, y) in enumerate([(11, 12), (20, 19)]):
        lesion = ((i - x) ** 2 + (j - y) ** 2 < 6**2) & (k > 0)
        noise = np.random.default_rng(number).random(grid.shape)
        paths = [folder / f"{number}_{what}.nii.gz" for what in ("image", "brain", "lesion")]
        write_volume(paths[0], brain * (100 + 10 * noise + 80 * lesion), grid.affine, space=TEMPLATE_SPACE)
        write_volume(paths[1], brain, grid.affine, dtype=np.uint8)
        write_volume(paths[2], lesion & brain, grid.affine, dtype=np.uint8)
        records.append(
            ScanRecord(
                subject=str(number),
                image=paths[0],
                modality="FLAIR",
                brain_mask=paths[1],
                lesion=paths[2],
                split="train",
                pathology="ms",
            )
        )
    return Manifest(tuple(records))


@pytest.mark.slow
def test_the_scans_of_a_run_are_shown_with_neighbours_and_counted_as_configured(tmp_path: Path) -> None:
    preprocessing = PreprocessingConfig(shape=(32, 32, 8), spacing_mm=6.0, registration="none", bias_correction="none")
    rows = write_blobs(tmp_path, preprocessing)
    further = tmp_path / "further.tsv"
    rows.select(lambda record: record.subject == "1").write(further)
    data = DataConfig(preprocessing=preprocessing, more_manifests=(further,), oversample_factor=3)
    segmenter = SegmenterConfig(channels=(8, 16), encoder="early", neighbours=(-1, 1))
    config = SegmenterTraining(regime="weak", data=data, segmenter=segmenter)
    others = tuple(replace(r, subject=f"{r.subject}x") for r in rows)

    def opened(train: Iterable[ScanRecord], val: Iterable[ScanRecord]) -> dict[str, SliceStore]:
        both = Manifest((*train, *(replace(record, split="val") for record in val)))
        return _open({"annotated": both}, config, tmp_path)["annotated"]

    learned = opened(rows, others)["train"]
    assert [record.subject for record in learned.records] == ["0", "1", "1", "1"]
    assert learned.neighbours == (-1, 1)
    assert len(opened(others, rows)["val"]) == 2, "what is judged is judged once"
    healthy = Manifest(
        tuple(
            replace(r, pathology="healthy", lesion=None, subject=f"{r.subject}{s}", split=s)
            for r in rows
            for s in ("train", "val")
        )
    )
    healthy.select(lambda record: record.subject.startswith("1")).write(further)
    counted = {split: len(store) for split, store in open_slices(healthy, "healthy", data, tmp_path).items()}
    assert counted == {"train": 4, "val": 2}


@pytest.mark.slow
def test_the_segmenter_learns_two_blobs(tmp_path: Path) -> None:
    preprocessing = PreprocessingConfig(shape=(32, 32, 8), spacing_mm=6.0, registration="none", bias_correction="none")
    store = build_store(write_blobs(tmp_path, preprocessing), preprocessing, tmp_path / "cache", description="blobs")
    assert len(store) == 2
    assert all(len(slices) >= 6 for slices in store.lesion_slices)
    loop = LoopConfig(
        steps=60, batch_size=8, lr=1e-2, precision="32-true", log_every=1, validate_every=60, validation_batches=1
    )
    config = SegmenterTraining(regime="weak", lesion_fraction=1.0, segmenter=SIZE, augmentation=PLAIN, loop=loop)
    torch.manual_seed(0)
    stores = {"annotated": {"train": store, "val": store}}
    stage = SegmenterStage(Segmenter(SIZE), reconstructor(), stores, config)
    train(stage, loop, tmp_path, fabric=Fabric(accelerator="cpu", devices=1, precision="32-true"), name="t")
    with (tmp_path / "log.csv").open() as handle:
        losses = [float(row["loss"]) for row in csv.DictReader(handle)]
    assert len(losses) == 60
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
