"""Selection of scans in a BIDS data set by participant, session, contrast and filter file."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from halebrain.core.errors import DataError, MissingInputError, UsageError
from halebrain.core.registry import suggestion
from halebrain.core.wording import first_of
from halebrain.io.bids import ENTITIES, LONG_NAMES, SUFFIXES, BidsName, read_name
from halebrain.io.discovery import Found, bids_images
from halebrain.io.tree import FileTree, LeftOut, summed_left_out
from halebrain.io.volume import stem_of

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


def select_scans(dataset: Path, query: BidsQuery) -> Found[Path]:
    """Return the anatomical scans that are meant, sorted, and the images of the same people that are no such scans.

    One that cannot be read, as it was not fetched, is among them: it fails alone. A label or a contrast that is not
    there is an error that lists those that are.
    """
    people = _wanted(query.participants, _folders(dataset, "sub-*"), "sub")
    sessions = _wanted(query.sessions, _folders(dataset, "sub-*/ses-*"), "ses")
    if unknown := [name for name in query.modalities if name not in MODALITIES]:
        raise UsageError(
            "--modality takes a supported BIDS suffix",
            received=unknown[0],
            remedy=suggestion(unknown[0], list(MODALITIES)),
        )
    every = bids_images(FileTree(dataset))
    asked = [
        (dataset / name, read)
        for name, read in every
        if _is_of(read, people, sessions) and _fits(read, dataset / name, query.rules.get(read.suffix.lower(), {}))
    ]
    wanted = set(query.modalities)
    found = [path for path, read in asked if not wanted or {read.modality, read.suffix} & wanted]
    if not found:
        there = sorted({read.modality for _, read in asked})
        looked_for = f"looked for {', '.join(query.modalities or SUFFIXES)}"
        raise MissingInputError(
            "the filters must leave at least one scan",
            received=f"{', '.join(there)} only" if there else summed_left_out(every.left_out),
            where=dataset,
            remedy=f"{looked_for}; --modality {' '.join(there)} takes what is there" if there else looked_for,
        )
    return Found(found, [one for one in every.left_out if _concerns(one, people, sessions)])


def _is_of(name: BidsName, people: set[str], sessions: set[str]) -> bool:
    return (not people or name.entities["sub"] in people) and (not sessions or name.entities.get("ses") in sessions)


def _concerns(image: LeftOut, people: set[str], sessions: set[str]) -> bool:
    """Return whether a left-out image belongs to a requested participant, by its name."""
    name = read_name(stem_of(Path(image.name)))
    return _is_of(name, people, sessions) if name is not None else not people and not sessions


def read_rules(path: Path) -> tuple[dict[str, Rule], tuple[str, ...]]:
    """Return the rules of a filter file as fMRIPrep and its kin have it, and the names of those for other images.

    Example:
        `{"t1w": {"session": "01", "acquisition": null, "run": [1, 2]}}`
    """
    if not path.is_file():
        raise MissingInputError("a filter file must exist", where=path, remedy="check the path given")
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(
            "a filter file must be JSON", received=error, where=path, remedy='for example {"t1w": {"run": 1}}'
        ) from error
    if not isinstance(raw, dict) or not all(isinstance(rule, dict) for rule in raw.values()):
        raise DataError(
            "a filter file must be an object of objects", where=path, remedy='for example {"t1w": {"run": 1}}'
        )
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
        raise UsageError(
            f"a label must be one of the data set's '{key}-' folders",
            received=", ".join(unknown),
            remedy=f"there are {first_of(shown, _SHOWN)}" if shown else f"there is no '{key}-' folder",
        )
    return wanted


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
