"""Methods text of a result, for a paper or a record, from its provenance alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from halebrain.core.modality import networks_asked

BEHRENDT = (
    "Behrendt F, Bhattacharya D, Maack L, Krüger J, Opfer R, Schlaefer A. Combining Reconstruction-based Unsupervised "
    "Anomaly Detection with Supervised Segmentation for Brain MRIs. MIDL 2024, PMLR 250:87–102."
)
FONOV = (
    "Fonov V, Evans AC, Botteron K, Almli CR, McKinstry RC, Collins DL. Unbiased average age-appropriate atlases for "
    "pediatric studies. NeuroImage 2011;54:313–327."
)
TUSTISON = (
    "Tustison NJ, Avants BB, Cook PA, et al. N4ITK: improved N3 bias correction. IEEE Trans Med Imaging "
    "2010;29:1310–1320."
)
SIMPLEITK = "Lowekamp BC, Chen DT, Ibáñez L, Blezek D. The design of SimpleITK. Front Neuroinform 2013;7:45."
GREEDY = (
    "Yushkevich PA, Pluta J, Wang H, Wisse LEM, Das S, Wolk D. Fast automatic segmentation of hippocampal subfields "
    "and medial temporal lobe subregions in 3 Tesla and 7 Tesla T2-weighted MRI. Alzheimers Dement "
    "2016;12(7S):P126–P127."
)
ANTS = (
    "Avants BB, Tustison NJ, Song G, et al. A reproducible evaluation of ANTs similarity metric performance in brain "
    "image registration. NeuroImage 2011;54:2033–2044."
)
HDBET = (
    "Isensee F, Schell M, Pflueger I, et al. Automated brain extraction of multisequence MRI using artificial neural "
    "networks. Hum Brain Mapp 2019;40:4952–4964."
)
DEEPBET = (
    "Fisch L, Zumdick S, Barkhau C, et al. deepbet: fast brain extraction of T1-weighted MRI using convolutional "
    "neural networks. Comput Biol Med 2024;179:108845."
)
SYNTHSTRIP = (
    "Hoopes A, Mora JS, Dalca AV, Fischl B, Hoffmann M. SynthStrip: skull-stripping for any brain image. NeuroImage "
    "2022;260:119474."
)

_BESIDE = " with the neighbouring slices of the scan"
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
_CITED = {
    "behrendt": BEHRENDT,
    "fonov": FONOV,
    "tustison": TUSTISON,
    "simpleitk": SIMPLEITK,
    "greedy": GREEDY,
    "ants": ANTS,
    "hdbet": HDBET,
    "deepbet": DEEPBET,
    "synthstrip": SYNTHSTRIP,
}


def methods_text(provenance: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the paragraph, and its references in the order of their numbers.

    Args:
        provenance: Of a detection. What it does not state is left out.
    """
    steps = {step["step"]: step for step in provenance.get("steps", ())}
    sentences = [
        _BRAIN.get(str(steps.get("brain", {}).get("method")), ""),
        _registration(steps, str(provenance.get("space", "MNI152NLin2009aSym"))),
        *_intensities(steps),
        *_networks(provenance),
        _threshold(provenance),
        _versions(provenance),
    ]
    cited = _CITED | {"reconstructor": str(provenance.get("method", {}).get("reconstructor_reference", ""))}
    return _numbered(" ".join(sentence for sentence in sentences if sentence), cited)


def _registration(steps: Mapping[str, Any], space: str) -> str:
    method = str(steps.get("registration", {}).get("method", ""))
    template = f"the template {space}" + (" [{fonov}]" if space.startswith("MNI152") else "")
    grid = ""
    if "resample" in steps:
        size = steps["resample"]["spacing_mm"]
        grid = f", on a grid of {'×'.join(str(n) for n in steps['resample']['shape'])} voxels of {size:g} mm"
    if method == "none":
        return f"The scan was assumed to be registered to {template} already{grid}."
    if not method:
        return ""
    by = next((text for name, text in _ENGINES.items() if name in method.lower()), _ENGINES["simpleitk"])
    return f"The scan was registered to {template} by an affine transform with {by}{grid}."


def _intensities(steps: Mapping[str, Any]) -> list[str]:
    found = []
    if steps.get("denoising", {}).get("iterations"):
        found.append(f"Noise was reduced by {steps['denoising']['iterations']} steps of curvature flow.")
    if steps.get("bias correction", {}).get("method") == "n4":
        found.append("The bias field was removed by N4 [{tustison}].")
    if "intensity" in steps:
        low, high = steps["intensity"]["percentiles"]
        found.append(f"Intensities between the percentiles {low:g} and {high:g} of the brain were scaled to [0, 1].")
    return found


def _networks(provenance: Mapping[str, Any]) -> list[str]:
    method, levels = provenance.get("method", {}), provenance.get("levels", [])
    source = " [{reconstructor}]" if method.get("reconstructor_reference") else ""
    kind = f" ({method['reconstructor']}{source})" if method.get("reconstructor") else ""
    at = f" at the levels {', '.join(str(level) for level in levels)}" if len(levels) > 1 else ""
    draws = provenance.get("draws", 1)
    times = f", {draws} noise samples each" if draws > 1 else ""
    found = [f"A model trained on healthy brains{kind} computed pseudo-healthy reconstructions{at}{times}."]
    if method.get("segmenter", True):
        twice = ", original and mirrored" if method.get("mirror") else ""
        who, beside = _segmenters(method, (provenance.get("threshold") or {}).get("modality"))
        found.append(f"{who} processed each pair of scan and reconstruction{beside}{twice} [{{behrendt}}].")
    if "residual_weight" in method:
        weight = method["residual_weight"]
        found.append(
            f"The anomaly score is {weight:g} × residual ({method['residual']}) + {1 - weight:g} × probability, "
            "averaged over levels."
        )
    own = method.get("through_plane_by_contrast", {}).get((provenance.get("threshold") or {}).get("modality"))
    narrow, wide = own or (method.get(name, 0) for name in ("through_plane_mm", "around_mm"))
    if how := _across_slices(narrow, wide):
        found.append(f"The probability was smoothed across slices ({how}).")
    return found


def _across_slices(narrow: float, wide: float) -> str:
    if narrow and wide:
        return f"geometric mean of two Gaussians, standard deviations {narrow:g} and {wide:g} mm"
    if wide:
        return f"geometric mean with a Gaussian, standard deviation {wide:g} mm"
    return f"Gaussian, standard deviation {narrow:g} mm" if narrow else ""


def _segmenters(method: Mapping[str, Any], shown: str | None) -> tuple[str, str]:
    """Return which networks processed a scan of the contrast `shown`, and whether with neighbouring slices."""
    each: Sequence[Sequence[str]] = method.get("contrasts", [])
    if not each:
        return "A segmentation network", f",{_BESIDE}" if method.get("neighbours") else ""
    asked = networks_asked(each, shown)
    # Results of earlier versions do not say it of each network.
    seen = method.get("neighbours_each") or [method.get("neighbours")] * len(each)
    with_beside = sum(bool(seen[number]) for number in asked)
    some = "" if with_beside == len(asked) else f" {'one' if with_beside == 1 else with_beside} of them"
    return _who([each[number] for number in asked]), f",{some}{_BESIDE}" if with_beside else ""


def _who(contrasts: Sequence[Sequence[str]]) -> str:
    """Return the networks that were asked, by the contrasts that each learned from."""
    learned = [" and ".join(names) for names in contrasts]
    if len(learned) == 1:
        return f"A segmentation network trained on {learned[0]} scans" if learned[0] else _FOR_OTHERS
    many = f"{len(learned)} segmentation networks"
    if all(learned) and len(set(learned)) == 1:
        return f"{many} trained on {learned[0]} scans (averaged)"
    if all(learned) and len(learned) == 2:
        return f"{many} (one trained on {learned[0]}, the other on {learned[1]} scans; averaged)"
    return f"{many} (averaged)"


def _threshold(provenance: Mapping[str, Any]) -> str:
    threshold = provenance.get("threshold")
    if not threshold:
        return ""
    name = "fixed by hand" if threshold.get("name") == "fixed" else f"“{threshold.get('name')}” of the model"
    smallest = threshold.get("min_lesion_mm3") or 0
    kept = f"; components smaller than {smallest:g} mm³ were removed" if smallest else ""
    return f"Voxels with a score of at least {threshold['value']:.4g} ({name}) were marked as anomalous{kept}."


def _versions(provenance: Mapping[str, Any]) -> str:
    version = provenance.get("versions", {}).get("halebrain")
    if not version:
        return ""
    model = str(provenance.get("model_sha256", ""))[:12]
    return f"HaleBrain {version}, model {model}, seed {provenance.get('seed', 0)}."


def _numbered(text: str, cited: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return the text with numbers for the names in braces, and what they stand for."""
    places = {name: text.find(f"{{{name}}}") for name in cited}
    order = sorted((name for name, place in places.items() if place >= 0), key=lambda name: places[name])
    for index, name in enumerate(order, start=1):
        text = text.replace(f"{{{name}}}", str(index))
    return text, [cited[name] for name in order]
