"""Methods text of a result, for a paper or a record, from its provenance alone."""

from collections.abc import Mapping, Sequence

from halebrain.core.modality import networks_asked
from halebrain.core.provenance import FIXED, ChosenThreshold, ProcessingStep, Provenance, ScoringMethod
from halebrain.core.types import TEMPLATE_SPACE

CITED = {
    "canny": (
        "Canny J. A computational approach to edge detection. IEEE Trans Pattern Anal Mach Intell 1986;8:679–698."
    ),
    "behrendt": (
        "Behrendt F, Bhattacharya D, Maack L, Krüger J, Opfer R, Schlaefer A. Combining Reconstruction-based "
        "Unsupervised Anomaly Detection with Supervised Segmentation for Brain MRIs. MIDL 2024, PMLR 250:87–102."
    ),
    "fonov": (
        "Fonov V, Evans AC, Botteron K, Almli CR, McKinstry RC, Collins DL. Unbiased average age-appropriate atlases "
        "for pediatric studies. NeuroImage 2011;54:313–327."
    ),
    "tustison": (
        "Tustison NJ, Avants BB, Cook PA, et al. N4ITK: improved N3 bias correction. IEEE Trans Med Imaging "
        "2010;29:1310–1320."
    ),
    "simpleitk": "Lowekamp BC, Chen DT, Ibáñez L, Blezek D. The design of SimpleITK. Front Neuroinform 2013;7:45.",
    "greedy": (
        "Yushkevich PA, Pluta J, Wang H, Wisse LEM, Das S, Wolk D. Fast automatic segmentation of hippocampal "
        "subfields and medial temporal lobe subregions in 3 Tesla and 7 Tesla T2-weighted MRI. Alzheimers Dement "
        "2016;12(7S):P126–P127."
    ),
    "ants": (
        "Avants BB, Tustison NJ, Song G, et al. A reproducible evaluation of ANTs similarity metric performance in "
        "brain image registration. NeuroImage 2011;54:2033–2044."
    ),
    "hdbet": (
        "Isensee F, Schell M, Pflueger I, et al. Automated brain extraction of multisequence MRI using artificial "
        "neural networks. Hum Brain Mapp 2019;40:4952–4964."
    ),
    "deepbet": (
        "Fisch L, Zumdick S, Barkhau C, et al. deepbet: fast brain extraction of T1-weighted MRI using convolutional "
        "neural networks. Comput Biol Med 2024;179:108845."
    ),
    "synthstrip": (
        "Hoopes A, Mora JS, Dalca AV, Fischl B, Hoffmann M. SynthStrip: skull-stripping for any brain image. "
        "NeuroImage 2022;260:119474."
    ),
}
"""References by the names in braces."""
_BESIDE = " with the neighbouring slices of the scan"
_LEANING = "normalised_leaning"
_FOR_OTHERS = "The segmentation network for all other contrasts"
_BRAIN = {
    "given": "The brain mask was provided by the user.",
    "stripped": "The scan was skull-stripped already.",
    "none": "The brain was not extracted.",
    "atlas": "The brain was extracted by fitting the brain surface of the template to the edges in the scan.",
    "hdbet": "The brain was extracted with HD-BET [{hdbet}].",
    "deepbet": "The brain was extracted with deepbet [{deepbet}].",
    "synthstrip": "The brain was extracted with SynthStrip [{synthstrip}].",
}
_ENGINES = {
    "greedy": "Greedy [{greedy}], normalised mutual information",
    "ants": "ANTs [{ants}]",
    "simpleitk": "SimpleITK [{simpleitk}], Mattes mutual information",
}
"""By a word of the provenance; earlier versions named the measure of SimpleITK in its place."""


def methods_text(provenance: Provenance, *, contrast: str | None = None) -> tuple[str, list[str]]:
    """Return the paragraph, without what the provenance does not state, and its references in order of number.

    `contrast` is that of the scan, for whose networks the paragraph is; `None` = the one that the threshold states. The
    threshold of an exam states all its contrasts.
    """
    if contrast is None and provenance.threshold is not None:
        contrast = provenance.threshold.modality
    steps = {step.step: step for step in provenance.steps}
    sentences = [
        _BRAIN.get(str(steps["brain"].method), "") if "brain" in steps else "",
        _registration(steps, provenance.space or TEMPLATE_SPACE),
        *_intensities(steps),
        *_networks(provenance, contrast),
        _threshold(provenance.threshold),
        _versions(provenance),
    ]
    method = provenance.method or ScoringMethod()
    cited = CITED | {"reconstructor": method.reconstructor_reference or ""}
    cited["second_pass"] = "" if method.second_pass is None else method.second_pass.reference
    return _numbered(" ".join(sentence for sentence in sentences if sentence), cited)


def _registration(steps: Mapping[str, ProcessingStep], space: str) -> str:
    method = (steps["registration"].method or "") if "registration" in steps else ""
    template = f"the template {space}" + (" [{fonov}]" if space.startswith("MNI152") else "")
    grid = ""
    if (made := steps.get("resample")) and made.shape and made.spacing_mm:
        grid = f", on a grid of {'×'.join(str(n) for n in made.shape)} voxels of {made.spacing_mm:g} mm"
    if method == "none":
        return f"The scan was assumed to be registered to {template} already{grid}."
    if not method:
        return ""
    engine = method.partition(", through ")[0].lower()  # what follows is the name of a scan
    if engine == "affine (none":
        return f"The scan was registered rigidly to another one of the exam, which lies in {template}{grid}."
    by = next((text for name, text in _ENGINES.items() if name in engine), _ENGINES["simpleitk"])
    return f"The scan was registered to {template} by an affine transform with {by}{grid}."


def _intensities(steps: Mapping[str, ProcessingStep]) -> list[str]:
    found = []
    if (denoising := steps.get("denoising")) and denoising.iterations:
        found.append(f"Noise was reduced by {denoising.iterations} steps of curvature flow.")
    if (bias := steps.get("bias correction")) and bias.method == "n4":
        found.append("The bias field was removed by N4 [{tustison}].")
    if (intensity := steps.get("intensity")) and intensity.percentiles:
        low, high = intensity.percentiles
        found.append(f"Intensities between the percentiles {low:g} and {high:g} of the brain were scaled to [0, 1].")
    return found


def _networks(provenance: Provenance, contrast: str | None) -> list[str]:
    method, levels, draws = provenance.method or ScoringMethod(), provenance.levels, provenance.draws or 1
    source = " [{reconstructor}]" if method.reconstructor_reference else ""
    kind = f" ({method.reconstructor}{source})" if method.reconstructor else ""
    at = f" at the levels {', '.join(str(level) for level in levels)}" if len(levels) > 1 else ""
    times = f", {draws} noise samples each" if draws > 1 else ""
    found = [f"A model trained on healthy brains{kind} computed pseudo-healthy reconstructions{at}{times}."]
    if method.segmenter:
        ways = [word for word, is_done in (("mirrored", method.mirror), ("shifted", method.overlap)) if is_done]
        twice = f", original and {' and '.join(ways)}" if ways else ""
        who, beside = _segmenters(method, contrast)
        found.append(f"{who} processed each pair of scan and reconstruction{beside}{twice} [{{behrendt}}].")
    if (second := method.second_pass) is not None:
        source = " [{second_pass}]" if second.reference else ""
        found.append(
            f"Where the probability reached {second.doubt:g}, and {second.grow} pixels around, an inpainting network "
            f"filled the scan from its surroundings{source}; elsewhere the pseudo-healthy scan is the scan itself."
        )
    if (weight := method.residual_weight) is not None:
        first = "" if method.second_pass is None else " of the first reconstruction"
        averaged = ", averaged over levels" if len(levels) > 1 else ""
        found.append(f"The anomaly score is {_fused(method, weight, first, contrast)}{averaged}.")
    own = (method.through_plane_by_contrast or {}).get(contrast or "")
    narrow, wide = own or (method.through_plane_mm, method.around_mm)
    if how := _across_slices(narrow, wide):
        found.append(f"The probability was smoothed across slices ({how}).")
    if (lowest := method.lowest_z_mm) is not None:
        found.append(f"Nothing was scored below z = {lowest:g} mm of the template, where the spinal cord begins.")
    return found


def _fused(method: ScoringMethod, weight: float, first: str, contrast: str | None) -> str:
    if method.fusion == "log_odds" and contrast not in method.evidence:
        return "the probability"
    if method.fusion == "log_odds":
        sign = "; half, where its sign is the one that lesions seldom have" if method.residual == _LEANING else ""
        return (
            f"σ(logit(probability) + {weight:g} × z), with z the residual{first} in standard deviations of healthy "
            f"scans at the same place ({method.residual}; at most 6{sign})"
        )
    return f"{weight:g} × residual{first} ({method.residual}) + {1 - weight:g} × probability"


def _across_slices(narrow: float, wide: float) -> str:
    if narrow and wide:
        return f"geometric mean of two Gaussians, standard deviations {narrow:g} and {wide:g} mm"
    if wide:
        return f"geometric mean with a Gaussian, standard deviation {wide:g} mm"
    return f"Gaussian, standard deviation {narrow:g} mm" if narrow else ""


def _segmenters(method: ScoringMethod, contrast: str | None) -> tuple[str, str]:
    """Return which networks processed a scan of a contrast, and whether with neighbouring slices."""
    each = method.contrasts
    if not each:
        return "A segmentation network", f",{_BESIDE}" if method.neighbours else ""
    used = networks_asked(each, contrast)
    # Results of earlier versions do not say it of each network.
    seen = method.neighbours_each or (method.neighbours,) * len(each)
    with_beside = sum(bool(seen[number]) for number in used)
    some = "" if with_beside == len(used) else f" {'one' if with_beside == 1 else with_beside} of them"
    return _who([each[number] for number in used]), f",{some}{_BESIDE}" if with_beside else ""


def _who(contrasts: Sequence[Sequence[str]]) -> str:
    """Return the networks that were used, by the contrasts that each learned from."""
    learned = [" and ".join(names) for names in contrasts]
    if len(learned) == 1:
        return f"A segmentation network trained on {learned[0]} scans" if learned[0] else _FOR_OTHERS
    many = f"{len(learned)} segmentation networks"
    if all(learned) and len(set(learned)) == 1:
        return f"{many} trained on {learned[0]} scans (averaged)"
    if all(learned) and len(learned) == 2:
        return f"{many} (one trained on {learned[0]}, the other on {learned[1]} scans; averaged)"
    return f"{many} (averaged)"


def _threshold(threshold: ChosenThreshold | None) -> str:
    if threshold is None:
        return ""
    name = "fixed by hand" if threshold.name == FIXED else f"“{threshold.name}” of the model"
    smallest = threshold.min_lesion_mm3
    kept = f"; components smaller than {smallest:g} mm³ were removed" if smallest else ""
    grown = ""
    if threshold.grow_to is not None:
        lower = f"with a score of at least {threshold.grow_to:.4g}"
        grown = f" Each finding was grown into the connected voxels {lower} [{{canny}}]."
    return f"Voxels with a score of at least {threshold.value:.4g} ({name}) were marked as anomalous{kept}.{grown}"


def _versions(provenance: Provenance) -> str:
    version = (provenance.versions or {}).get("halebrain")
    if not version:
        return ""
    return f"HaleBrain {version}, model {(provenance.model_sha256 or '')[:12]}, seed {provenance.seed or 0}."


def _numbered(text: str, cited: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return the text with numbers for the names in braces, and what they stand for."""
    places = {name: text.find(f"{{{name}}}") for name in cited}
    order = sorted((name for name, place in places.items() if place >= 0), key=lambda name: places[name])
    for index, name in enumerate(order, start=1):
        text = text.replace(f"{{{name}}}", str(index))
    return text, [cited[name] for name in order]
