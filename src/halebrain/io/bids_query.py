"""Which scans of a BIDS data set are meant: by participant, session, contrast, and a filter file."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from halebrain.core.errors import DataError, MissingInputError, UsageError
from halebrain.core.registry import suggestion
from halebrain.io.bids import ENTITIES, LONG_NAMES, BidsName, parse_name
from halebrain.io.discovery import bids_scans
from halebrain.io.volume import stem_of

SUFFIXES = ("T1w", "T2w", "FLAIR", "inplaneT2")
"""Kinds of image that are looked at."""
MODALITIES = (*SUFFIXES, "T1ce")
_ANY = "*"
_OTHER_KEYS = ("suffix", "datatype", "extension")
_SHOWN = 20
Rule = dict[str, Any]


@dataclass(frozen=True)
class BidsQuery:
    """A choice of scans; what is empty leaves all.

    Args:
        participants: Labels, with or without `sub-`.
        sessions: Labels, with or without `ses-`; scans without a session do not fit any.
        modalities: Suffixes ("FLAIR"), or "T1ce" for a T1w with a contrast agent.
        rules: What names must say, for each suffix in lower case ("t1w"): key → label, labels, `None` = without that
            key, "*" = with any.
    """

    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    rules: dict[str, Rule] = field(default_factory=dict)


def select_scans(dataset: Path, query: BidsQuery) -> list[Path]:
    """Return the anatomical scans that are meant, sorted.

    Raises:
        UsageError: A label or a contrast is not there; the message lists those that are.
        MissingInputError: No scan is left.
        DataError: A symbolic link leads out of the data set or nowhere.
    """
    people = _wanted(query.participants, _folders(dataset, "sub-*"), "sub")
    sessions = _wanted(query.sessions, _folders(dataset, "sub-*/ses-*"), "ses")
    if unknown := [name for name in query.modalities if name not in MODALITIES]:
        raise UsageError(
            "--modality takes a kind of image that is looked at",
            received=unknown[0],
            remedy=suggestion(unknown[0], list(MODALITIES)),
        )
    found = []
    for path in bids_scans(dataset):
        name = _read_name(stem_of(path))
        if people and name.entities["sub"] not in people:
            continue
        if sessions and name.entities.get("ses") not in sessions:
            continue
        if query.modalities and not {name.modality, name.suffix} & set(query.modalities):
            continue
        if _fits(name, path, query.rules.get(name.suffix.lower(), {})):
            found.append(path)
    if not found:
        raise MissingInputError(
            "the choice must leave at least one scan", where=dataset, remedy=f"looked for {', '.join(SUFFIXES)} in anat"
        )
    return found


def read_rules(path: Path) -> tuple[dict[str, Rule], tuple[str, ...]]:
    """Return the rules of a filter file as fMRIPrep and its kin have it, and the names of those for other images.

    Example:
        `{"t1w": {"session": "01", "acquisition": null, "run": [1, 2]}}`

    Raises:
        MissingInputError: There is no such file.
        DataError: It is no JSON object of objects, or names an unknown key.
    """
    if not path.is_file():
        raise MissingInputError("a filter file must exist", where=path, remedy="check the path given")
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(
            "a filter file must be JSON", received=error, where=path, remedy='as {"t1w": {"run": 1}}'
        ) from error
    if not isinstance(raw, dict) or not all(isinstance(rule, dict) for rule in raw.values()):
        raise DataError("a filter file must be an object of objects", where=path, remedy='as {"t1w": {"run": 1}}')
    ours = {suffix.lower() for suffix in SUFFIXES}
    rules = {
        name.lower(): {_short(key, path): value for key, value in rule.items()}
        for name, rule in raw.items()
        if name.lower() in ours
    }
    return rules, tuple(name for name in raw if name.lower() not in ours)


def _short(key: str, where: Path) -> str:
    short = LONG_NAMES.get(key, key)
    if short not in (*ENTITIES, *_OTHER_KEYS):
        known = [*LONG_NAMES, *ENTITIES, *_OTHER_KEYS]
        raise DataError("a filter names BIDS entities", received=key, where=where, remedy=suggestion(key, known))
    return short


def _folders(dataset: Path, pattern: str) -> set[str]:
    return {path.name.partition("-")[2] for path in dataset.glob(pattern) if path.is_dir()}


def _wanted(labels: Iterable[str], known: set[str], key: str) -> set[str]:
    wanted = {label.removeprefix(f"{key}-") for label in labels}
    if unknown := sorted(wanted - known):
        shown = sorted(known)
        there = ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else "")
        raise UsageError(
            f"a label must be one of the data set's '{key}-' folders",
            received=", ".join(unknown),
            remedy=f"there are {there}" if shown else f"there is no '{key}-' folder",
        )
    return wanted


def _read_name(stem: str) -> BidsName:
    """Return what a name says; of one with odd keys, which validation would refuse, what is known of it."""
    name = parse_name(stem)
    if name is not None:
        return name
    *pairs, suffix = stem.split("_")
    said = [pair.partition("-") for pair in reversed(pairs)]
    return BidsName({key: label for key, _, label in said if key in ENTITIES}, suffix)


def _fits(name: BidsName, path: Path, rule: Rule) -> bool:
    about = {**name.entities, "suffix": name.suffix, "datatype": path.parent.name}
    about["extension"] = path.name.removeprefix(stem_of(path))
    return all(_matches(about.get(key), wanted) for key, wanted in rule.items())


def _matches(label: str | None, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return any(_matches(label, one) for one in wanted)
    if wanted is None or label is None:
        return wanted is None and label is None
    said = str(wanted)
    if said == _ANY:
        return True
    # Indices are numbers: run 1 is run 01.
    return int(label) == int(said) if label.isdecimal() and said.isdecimal() else label == said
