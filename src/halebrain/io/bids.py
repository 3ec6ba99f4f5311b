"""File names as BIDS has them: entities in their order, a suffix, an ending."""

import re
from dataclasses import dataclass, replace

ENTITIES = (
    *("sub", "ses", "sample", "task", "tracksys", "acq", "nuc", "voi", "ce", "trc", "stain", "rec", "dir", "run"),
    *("mod", "echo", "flip", "inv", "mt", "part", "proc", "hemi", "space", "split", "recording", "chunk"),
    *("atlas", "seg", "scale", "res", "den", "label", "desc"),
)
"""Keys of a file name, in the order that the standard gives them."""
LONG_NAMES = {
    "subject": "sub",
    "session": "ses",
    "acquisition": "acq",
    "ceagent": "ce",
    "reconstruction": "rec",
    "direction": "dir",
    "modality": "mod",
    "inversion": "inv",
    "resolution": "res",
    "density": "den",
    "description": "desc",
}
"""What some tools call them."""
DATA_TYPES = ("anat", "dwi", "fmap", "func", "perf", "pet", "swi")
"""Folders of the images of a session, by their kind."""
SUFFIXES = ("T1w", "T2w", "FLAIR", "inplaneT2")
"""Suffixes that are processed."""
_WRITTEN = {suffix.lower(): suffix for suffix in (*SUFFIXES, "PDw")}
"""How the standard writes a suffix, by its lower case."""
_LABEL = re.compile(r"[a-zA-Z0-9+]+")
_KEY = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class BidsName:
    """One file name, without its ending: the label of each key, and the kind of image ("T1w", "mask")."""

    entities: dict[str, str]
    suffix: str

    @property
    def stem(self) -> str:
        """The name: `sub-01_ses-1_run-2_T1w`."""
        ordered = sorted(self.entities, key=lambda key: ENTITIES.index(key) if key in ENTITIES else len(ENTITIES))
        return "_".join([*(f"{key}-{self.entities[key]}" for key in ordered), self.suffix])

    @property
    def modality(self) -> str:
        """The contrast: the suffix, or "T1ce" for a T1w with a contrast agent."""
        return "T1ce" if self.suffix == "T1w" and "ce" in self.entities else self.suffix

    def derived(self, description: str, suffix: str | None = None) -> "BidsName":
        """Return the name of something made of this image; `suffix=None` = an image of the same contrast.

        Contrasts of a subject share a folder, so a name with another suffix keeps the image's own as its `rec`.
        """
        entities = {**self.entities, "desc": self.entities.get("desc", "") + description}
        if suffix is not None:
            entities["rec"] = self.entities.get("rec", "") + self.suffix
        return replace(self, entities=entities, suffix=suffix or self.suffix)


def parse_name(stem: str) -> BidsName | None:
    """Return the entities of a file name; `None` if it is not a BIDS name.

    Example:
        >>> parse_name("sub-01_run-2_T1w").entities
        {'sub': '01', 'run': '2'}
        >>> parse_name("scan 7") is None
        True
    """
    *pairs, suffix = stem.split("_")
    entities: dict[str, str] = {}
    for pair in pairs:
        key, _, label = pair.partition("-")
        if key not in ENTITIES or key in entities or not _LABEL.fullmatch(label):
            return None
        entities[key] = label
    return BidsName(entities, suffix) if "sub" in entities and suffix.isalnum() and suffix.isascii() else None


def read_name(stem: str) -> BidsName | None:
    """Return the entities of a name that is nearly valid BIDS; `None` without a subject.

    Beside what `parse_name` takes: labels with other signs ("_" and "-" too), keys that the standard does not have,
    a suffix in another case, and a contrast in the middle of the name, which is taken for `mod`.

    Example:
        >>> read_name("sub-AB_12-3_ses-1_flair")
        BidsName(entities={'sub': 'AB_12-3', 'ses': '1'}, suffix='FLAIR')
        >>> read_name("sub-01_T1w_label-lesion_roi").entities
        {'sub': '01', 'mod': 'T1w', 'label': 'lesion'}
    """
    *parts, suffix = stem.split("_")
    entities: dict[str, str] = {}
    last = ""
    for part in parts:
        key, dash, label = part.partition("-")
        if dash and _KEY.fullmatch(key) and key not in entities:
            entities[key], last = label, key
        elif part.lower() in _WRITTEN and "mod" not in entities:
            entities["mod"] = _WRITTEN[part.lower()]
        elif last:
            entities[last] += f"_{part}"
        else:
            return None
    return BidsName(entities, _WRITTEN.get(suffix.lower(), suffix)) if entities.get("sub") and suffix else None
