"""What each part of the recipe of `docs/how-to/general-model.md` brings under a small budget, on validation scans.

Two tables. Stage 1: what is left of a lesion and what of the rest is changed, by noise level. Stage 2, on one given
reconstructor: mean voxel AUPRC of the segmenter and of the fused score, by disease and modality.

    python benchmarks/ablation.py --manifest M --cache cache --reconstructor general/stage1/model -o OUT

A variant that is finished is not trained again; pairs of slices are made once for all that need the same. Small budgets
say which part matters first. To compare cohorts (anatomies, contrasts), train `--only "as it is"` on each and judge all
on the validation scans of one: `--judged-on COHORT`.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from choices import Looked, look, scores
from halebrain.core.config import parse_config
from halebrain.data.slices import SliceStore, build_store
from halebrain.evaluation.curve import Curve
from halebrain.inference.anomaly_map import PostprocessingConfig
from halebrain.inference.predictor import Predictor
from halebrain.io.manifest import Manifest
from halebrain.models.store import load_model
from halebrain.preprocessing.pipeline import PreprocessingConfig

ONLY_THREE = "data.pathologies=[ms,stroke,tumour]"
STAGE1 = {
    "as it is": [],
    "without train_with_anomalies": ["reconstructor.settings.train_with_anomalies=false"],
    "without a condition": ["reconstructor.settings.conditioning=none", "reconstructor.settings.encoder=null"],
    "a condition in every block": ["reconstructor.settings.conditioning=film"],
    "noise of every level": ["reconstructor.settings.train_levels=[1, 1000]"],
    "without contrasts beyond FLAIR": ["data.modalities=[FLAIR]"],
}
STAGE2 = {
    "as it is": [],
    "without synthetic anomalies": ["regime=weak"],
    "without virtual patients": ["regime=synthetic", "n_annotated=null"],
    "three of seven diseases": [ONLY_THREE],
    "without any real T1": ["data.more_manifests=[]"],
    "FLAIR alone": ["data.modalities=[FLAIR]"],
    "image alone (no residual)": ["segmenter.streams=[image]"],
    "residual alone": ["segmenter.streams=[residual]"],
    "an encoder for each of the two": ["segmenter.encoder=separate"],
    "without warps": ["augmentation.warp=0.0"],
    "from a probability of one half": ["segmenter.prior=0.5"],
    "cross-entropy and soft Dice": ["loss={cross_entropy: 1.0, dice: 1.0}"],
}
LEVELS, WEIGHT = (300, 400), 0.15
ACROSS = PostprocessingConfig(
    through_plane_mm=3.0, through_plane_sigma_wide_mm=16.0, through_plane_by_contrast={"T2w": (8.0, 0.0)}
)
"""As the model has them."""
OTHER_LEVELS = ((150,), (300,), (400,), (600,))
"""What the first table tells beside them."""


def train(stage: str, name: str, changes: list[str], steps: int, arguments: argparse.Namespace) -> Path:
    """Train one variant where it is not there; return its model."""
    folder: Path = arguments.output / stage / name.replace(" ", "_")
    if not (folder / "model").is_dir():
        sets = [f"loop.steps={steps}", f"loop.batch_size={arguments.batch_size}", "loop.validate_every=100000"]
        sets += [f"data.cache={arguments.cache}", *arguments.set]
        if stage == "segmenter":
            sets += ["data.modalities=[T1w,T2w,FLAIR]", f"n_annotated={arguments.n_annotated}"]
        command = [str(Path(sys.executable).parent / "halebrain"), "train", stage, "-c", "general", "-o", str(folder)]
        if stage == "segmenter":
            command += ["--reconstructor", str(arguments.reconstructor)]
        command += ["--manifest", str(arguments.manifest), "--threads", str(arguments.threads), "--no-progress"]
        for change in [*sets, *changes]:
            command += ["--set", change]
        subprocess.run(command, check=True)
    return folder / "model"


def mean_auprc(scans: list[Looked], *weights: float) -> list[dict[str, float]]:
    """Return for each weight the mean AUPRC of the fused score by disease, by modality, and over all."""
    found: list[dict[str, list[float]]] = [{} for _ in weights]
    for scan in scans:
        if not scan.lesion.any():
            continue
        fused = scores(scan, LEVELS, "absolute", 3, ACROSS.across_mm(scan.modality))
        for weight, table in zip(weights, found, strict=True):
            value = Curve.of(fused[weight][scan.brain_mask], scan.lesion[scan.brain_mask]).average_precision
            for key in ("all", scan.modality, scan.pathology):
                table.setdefault(key, []).append(value)
    return [{key: float(np.mean(values)) for key, values in table.items()} for table in found]


def left_and_changed(model: Path, store: SliceStore) -> list[list[Any]]:
    """Return for each set of levels the mean |x − x̂| in lesions (more is better), in the rest (less), and its AUPRC."""
    looked = tuple({level for levels in OTHER_LEVELS for level in levels})
    scans = list(look(Predictor(load_model(model)), store, looked))
    rows: list[list[Any]] = []
    for levels in (LEVELS, *OTHER_LEVELS):
        inside, outside, found = [], [], []
        for scan in scans:
            difference = np.abs(scan.image - np.mean([scan.reconstruction[level] for level in levels], axis=0))
            outside.append(difference[scan.brain_mask & ~scan.lesion].mean())
            if scan.lesion.any():
                inside.append(difference[scan.lesion].mean())
                residual = scores(scan, levels, "absolute", 3)[1.0]
                found.append(Curve.of(residual[scan.brain_mask], scan.lesion[scan.brain_mask]).average_precision)
        rows.append(["+".join(map(str, levels)), *map(float, (np.mean(inside), np.mean(outside), np.mean(found)))])
    return rows


def validation(arguments: argparse.Namespace) -> SliceStore:
    """Return the scans that variants are judged on."""
    judged = Manifest.read(arguments.judged_on or arguments.manifest).split("val")
    rows = [r for r in judged if r.modality in ("T1w", "T2w", "FLAIR")]
    records = []
    for disease in sorted({r.pathology for r in rows if r.pathology is not None and not r.is_healthy}):
        subjects = sorted({r.subject for r in rows if r.pathology == disease})[: arguments.per_disease]
        records += [r for r in rows if r.subject in subjects]
    config = load_model(arguments.reconstructor).config.preprocessing
    parsed = parse_config(PreprocessingConfig, config, where="model")
    return build_store(Manifest(tuple(records), source=None), parsed, arguments.cache, description="scans")


def chosen(variants: dict[str, list[str]], only: list[str] | None) -> dict[str, list[str]]:
    """Return the variants that were asked for; all where none was."""
    return {name: changes for name, changes in variants.items() if not only or name in only}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--judged-on", type=Path, help="Manifest of the validation scans; default: the same.")
    parser.add_argument("--only", nargs="+", help="Only these variants.")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--reconstructor", type=Path, required=True, help="Stage-1 model, for the second table.")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps1", type=int, default=300)
    parser.add_argument("--steps2", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--n-annotated", type=int, default=90, help="As many in every variant.")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="For every variant.")
    parser.add_argument("--per-disease", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stage", choices=("1", "2", "both"), default="both")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    store = validation(arguments)
    table: list[list[Any]] = []
    if arguments.stage != "2":
        table.append(["stage 1", "levels", "inside lesions", "outside", "AUPRC of the residual"])
        for name, changes in chosen(STAGE1, arguments.only).items():
            model = train("reconstructor", name, changes, arguments.steps1, arguments)
            table += [[name, *row] for row in left_and_changed(model, store)]
            print(*table[-1 - len(OTHER_LEVELS) :], sep="\n", flush=True)
    if arguments.stage != "1":
        columns = ["all", "T1w", "T2w", "FLAIR", *sorted({r.pathology or "" for r in store.records})]
        table.append(["stage 2, segmenter alone", *columns, "all, fused"])
        for name, changes in chosen(STAGE2, arguments.only).items():
            model = train("segmenter", name, changes, arguments.steps2, arguments)
            scans = list(look(Predictor(load_model(model)), store, LEVELS))
            alone, fused = mean_auprc(scans, 0.0, WEIGHT)
            values = [alone.get(column, float("nan")) for column in columns]
            table.append([name, *values, fused["all"]])
            print(table[-1], flush=True)
    lines = ["| " + " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row) + " |" for row in table]
    (arguments.output / f"ablation_{arguments.stage}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
