"""The model card: description, training data and limits of the model, in plain words."""

from typing import Any

from torch import nn

from halebrain.core.about import NOTICE
from halebrain.core.wording import counted
from halebrain.models.bundle import Bundle
from halebrain.models.bundle_files import About
from halebrain.models.ensemble import Ensemble

_CITATION = (
    "Behrendt F., Bhattacharya D., Maack L., Krüger J., Opfer R., Schlaefer A. Combining Reconstruction-based "
    "Unsupervised Anomaly Detection with Supervised Segmentation for Brain MRIs. MIDL 2024, PMLR 250:87–102."
)


def model_card(bundle: Bundle) -> str:
    """Return the card as Markdown; figures come from the training summary, none is written by hand."""
    spec = bundle.config.reconstructor
    lines = [
        f"# HaleBrain {bundle.config.kind}: {spec.name}",
        "",
        NOTICE,
        "",
        f"- Reconstructor: {spec.name}, {_millions(bundle.reconstructor)} M parameters",
    ]
    if bundle.segmenter is not None:
        lines.append(f"- Segmenter: {_millions(bundle.segmenter)} M parameters{_networks(bundle.segmenter)}")
    for stage, summary in bundle.training.items():
        lines += ["", f"## {stage}", "", *_describe(summary, bundle.config.postprocessing.get("residual_weight"))]
    if bundle.about is not None:
        lines += ["", "## Licence and citation", "", *_describe_owners(bundle.about)]
    lines += ["", "## Method", "", _CITATION, ""]
    return "\n".join(lines)


def _networks(segmenter: nn.Module) -> str:
    """Return the number of networks if there are several, and the contrasts that each is used for."""
    if not isinstance(segmenter, Ensemble):
        return ""
    each = [" and ".join(names) or "all others" for names in segmenter.contrasts_each]
    return f" in {len(segmenter.configs)} networks, {'for ' + ', '.join(each) if each else 'averaged'}"


def _describe_owners(about: About) -> list[str]:
    return [
        f"- Licence of the weights: {about.licence}",
        f"- Authors: {', '.join(about.authors)}",
        f"- Cite: {about.citation}",
        f"- Training data: {about.data}",
        *(f"- Figures: {figure}" for figure in about.figures),
        *(f"- Limits, {modality}: {limit}" for modality, limit in about.limits.items()),
    ]


def _describe(summary: dict[str, Any], weight: float | None) -> list[str]:
    """Return what is said of one training; `weight` is the present weight of the residual, `None` = the usual one."""
    if "tuned_for" in summary:
        # Who took part in an earlier tuning stays on record, and did not choose this weight.
        subjects = counted(summary.get("n_subjects", len(summary["val_subjects"])), "validation subject")
        same = weight is None or weight == summary["residual_weight"]
        since = "" if same else f"; since another score was chosen it is {weight:g}"
        return [
            f"- Residual weight {summary['residual_weight']:g}, best for {summary['tuned_for']} pathologies "
            f"on {subjects} (manifest {summary['manifest_sha256'][:12]}){since}"
        ]
    if "adapted_from" in summary:
        return _describe_adaptation(summary)
    config = summary["config"]
    lines = [
        f"- Learned from {counted(len(summary['train_subjects']), 'subject')}, "
        f"validated on {len(summary['val_subjects'])} (manifest {summary['manifest_sha256'][:12]})",
        f"- Modalities: {', '.join(summary['modalities'])}",
        f"- Step {summary['step']} of {config['loop']['steps']}, batch {config['loop']['batch_size']}, "
        f"validation loss {summary['validation_loss']:.4f}",
        f"- {_duration(summary['seconds'])} on {summary['device']}, seed {config['seed']}",
    ]
    if begun := summary.get("start", {}).get("sha256"):
        lines.append(
            f"- Began with the weights of {'encoder' if 'encoder' in summary['start'] else 'model'} {begun[:12]}"
        )
    if "pathologies" in summary:
        learned = ", ".join(summary["pathologies"]) or "none (synthetic anomalies only)"
        lines.append(f"- Annotated pathologies learned: {learned}")
    return lines


def _describe_adaptation(summary: dict[str, Any]) -> list[str]:
    tuning = summary["config"]["tuning"]
    lines = [
        f"- Segmenter of model {summary['adapted_from'][:12]}, adapted to {counted(len(summary['scans']), 'scan')} of "
        f"{counted(len(summary['train_subjects']), 'subject')} (manifest {summary['manifest_sha256'][:12]})",
        f"- Annotated pathologies learned: {', '.join(summary['pathologies'])}",
        f"- Modalities: {', '.join(summary['modalities'])}",
        f"- {counted(summary['steps'], 'step')}, batch {tuning['loop']['batch_size']}, on {summary['device']}, "
        f"seed {summary['config']['seed']}",
    ]
    if rehearsed := summary.get("rehearsed"):
        lines.append(f"- Virtual patients in rehearsal: {', '.join(rehearsed)}")
    for steps, value in zip(summary["steps_tried"], summary["auprc_left_out"], strict=True):
        lines.append(f"- Mean AUPRC of subjects left out, after {counted(steps, 'step')}: {value:.3f}")
    lines += [f"- {note[:1].upper()}{note[1:]}" for note in summary["notes"]]
    lines += ["- Scans, by the sha256 of image and lesion:"]
    for name, hashes in summary["scans"].items():
        lesion = hashes["lesion_sha256"]
        lines.append(f"  - {name}: {hashes['image_sha256'][:12]}, {'healthy' if lesion is None else lesion[:12]}")
    return lines


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _millions(network: Any) -> str:
    return f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f}"
