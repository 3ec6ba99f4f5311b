"""Words for the contrast of a scan, and their BIDS suffixes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_STAR = r"[-_ ]?(?:star|\*)[-_]?w?"
_WORDS = (
    ("FLAIR", r"(?:t2)?-?_?flair|t2f|dark[-_ ]?fluid|da[-_]?fl"),
    ("T1ce", r"t1(?:ce|c|gd|post|w?-?_?gad.*)|t1w?-?_?ce"),
    ("T2w", rf"t2w?(?!{_STAR}(?![a-z0-9]))|t2_?tse|t2_?space"),
    ("T1w", r"t1w?|t1n|mpra?ge|mp-?rage|spgr|bravo|tfe"),
    ("PDw", r"pdw?"),
    ("dwi", r"dwi|dti|trace|b1000"),
    ("ADC", r"adc"),
    ("SWI", r"swi"),
    ("T2starw", rf"t2w?{_STAR}"),
    ("bold", r"bold"),
    ("asl", r"asl"),
    ("PET", r"pet"),
)
"""Contrasts by the words for them in file names, the more specific first."""
_T1_FLAIR = re.compile(r"t1w?[-_ ]*flair")
"""A sequence with the contrast of a T1; in the name of a file, T1 may be a time point."""
_OPPOSITE = (frozenset({"T1w", "T1ce"}), frozenset({"T2w", "FLAIR"}))
"""Contrasts with opposite orders of tissues: no scan has one of each."""
_REFERENCE = re.compile(
    rf"(?<![a-z0-9])(?:(?:(?:co)?reg[a-z]*|to|onto|in)[-_ ]+(?:{'|'.join(words for _, words in _WORDS)})|space-t1w?)"
    r"(?![a-z0-9])"
)
"""The scan that a scan was registered to: "T1_in_FLAIR", "T1_reg_T2", "space-T1w". T2 SPACE is a sequence."""

ENTITIES = re.compile(r"(?P<entities>sub-[a-zA-Z0-9]+(?:_[a-z]+-[a-zA-Z0-9+]+)*)_(?P<suffix>[a-zA-Z0-9]+)")
"""A BIDS name: its entities and its suffix."""
_ALIKE = {"T1ce": "T1w"}
"""Contrast whose networks and thresholds are used for one that has none, as the order of tissues is the same."""


def contrast_alike(modality: str | None) -> str | None:
    """Return the contrast whose networks and thresholds are used for one that has none; `None` = there is none.

    Example:
        >>> contrast_alike("T1ce"), contrast_alike("FLAIR")
        ('T1w', None)
    """
    return _ALIKE.get(modality or "")


def lesions_are_dark(modality: str) -> bool:
    """Return whether lesions are darker than tissue: on T1, and on no other contrast."""
    return modality.upper().startswith("T1")


def networks_asked(each: Sequence[Sequence[str]], modality: str | None) -> tuple[int, ...]:
    """Return the indices of the networks that are used for a contrast (a BIDS suffix; `None` = not known).

    Those that name it, or the one whose tissues look alike (T1 for T1 with contrast medium); where there are none those
    that name no contrast, or were trained on synthetic contrasts ("random"); else all.

    Example:
        >>> networks_asked([("T1w",), ("T2w",), ("T2w",), ()], "T2w"), networks_asked([("T1w",), ()], "PDw")
        ((1, 2), (1,))
    """
    known = modality if any(modality in names for names in each) else contrast_alike(modality)
    own = [number for number, names in enumerate(each) if known in names]
    for_all = [number for number, names in enumerate(each) if not names or "random" in names]
    return tuple(own or for_all or range(len(each)))


@dataclass(frozen=True)
class ScanContrast:
    """The contrast of a scan.

    Args:
        name: A BIDS suffix; `None` where it is not known.
        known_from: "option", "manifest", "file name" (declared), "image" (inferred), or "nothing".
    """

    name: str | None
    known_from: str

    @property
    def declared(self) -> str | None:
        """Its name where it was declared; `None` where it was inferred or is not known."""
        return None if self.known_from in ("image", "nothing") else self.name


def find_contrast(option: str, in_manifest: str | None, scan: str, inferred: str | None) -> ScanContrast:
    """Return the contrast of a scan: declared by the user, the manifest or its name, else inferred from the image.

    `option` is "auto" or the user's word; `None` elsewhere = not known.

    Example:
        >>> find_contrast("auto", "t2", "sub-01_FLAIR", None)
        ScanContrast(name='T2w', known_from='manifest')
    """
    if option != "auto":
        return ScanContrast(option, "option")
    if in_manifest is not None:
        return ScanContrast(standard_modality(in_manifest), "manifest")
    if (named := modality_of_scan(scan)) is not None:
        return ScanContrast(named, "file name")
    return ScanContrast(None, "nothing") if inferred is None else ScanContrast(inferred, "image")


def guess_modality(name: str) -> str | None:
    """Return the contrast that a name states, as a BIDS suffix; `None` if it states none, or T1 and T2 or FLAIR alike.

    Example:
        >>> guess_modality("patient4_T2-FLAIR_1mm"), guess_modality("T1_in_FLAIR"), guess_modality("scan0001")
        ('FLAIR', 'T1w', None)

    """
    own = _REFERENCE.sub("", name.lower())
    if all(any(_places(words, own) for modality, words in _WORDS if modality in group) for group in _OPPOSITE):
        return None
    return split_name(own)[0] or split_name(name)[0]


def standard_modality(word: str) -> str:
    """Return the BIDS suffix for a modality in a table ("t1" → "T1w"), or the word itself if unknown.

    The contrasts of an exam stay several, where each of them is known.

    Example:
        >>> standard_modality("mprage"), standard_modality("FLAIR+T1w"), standard_modality("T1+Gd")
        ('T1w', 'FLAIR+T1w', 'T1w')
    """
    each = ["T1w" if _T1_FLAIR.search(part.lower()) else guess_modality(part) for part in word.split("+")]
    known = sorted(part for part in each if part is not None)
    return "+".join(known) if len(known) == len(each) else guess_modality(word) or word


def split_name(name: str) -> tuple[str | None, str]:
    """Return the contrast of a name, and the name without the word for it: what says who it is."""
    for modality, words in _WORDS:
        if found := _places(words, name):
            return modality, name[: found[-1].start()] + name[found[-1].end() :]
    return None, name


def _places(words: str, name: str) -> list[re.Match[str]]:
    """Return where some words stand in a name, bounded by anything but letters and digits; "t12" is no T1."""
    return list(re.finditer(rf"(?<![a-z0-9])(?:{words})(?![a-z0-9])", name.lower()))


def modality_of_scan(name: str) -> str | None:
    """Return the contrast in a scan's name: a BIDS suffix takes precedence over other words; `None` if absent.

    Example:
        >>> modality_of_scan("sub-01_acq-t2prep_T1w"), modality_of_scan("patient4_flair")
        ('T1w', 'FLAIR')
    """
    match = ENTITIES.fullmatch(name)
    said = guess_modality(match["suffix"]) if match else None
    return said or guess_modality(name)
