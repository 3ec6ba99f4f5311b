"""Any folder whose file names follow a pattern: `{subject}_{modality}.nii.gz`, `{subject}/{session}/{modality}.nii`."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from halebrain.core.config import Config
from halebrain.core.errors import ConfigError
from halebrain.core.registry import suggestion
from halebrain.core.wording import printable
from halebrain.data.datasets.base import SOURCES, Draft, Source
from halebrain.io.discovery import is_named_as_mask
from halebrain.io.manifest import ScanRecord, Space
from halebrain.io.tree import FileTree, label

GAPS = ("subject", "session", "modality", "site", "any")
_GAP = re.compile(r"\{([^{}]*)\}")
_MASKS = ("brain_mask", "lesion")
Gaps = dict[str, str]


def to_regex(pattern: str) -> str:
    """Return a pattern as a regular expression; placeholders match anything but "/", the same text if repeated.

    Placeholders are `{subject}`, `{session}`, `{modality}`, `{site}`, and `{any}` for any text. All other text is
    literal.

    Raises:
        ConfigError: There is an unknown placeholder, or none for the subject.

    Example:
        >>> to_regex("{subject}/{subject}_T1w")
        '(?P<subject>[^/]+)/(?P=subject)_T1w'
    """
    parts: list[str] = []
    for place, part in enumerate(_GAP.split(pattern)):
        group = f"(?P<{part}>[^/]+)"
        if place % 2 == 0:
            parts.append(re.escape(part))
        elif _known(part, pattern) == "any":
            parts.append("[^/]*")
        else:
            parts.append(f"(?P={part})" if group in parts else group)
    if "(?P<subject>[^/]+)" not in parts:
        raise ConfigError(
            "a pattern must hold {subject}",
            received=repr(pattern),
            where="pattern",
            remedy="for example {subject}_T1w.nii.gz",
        )
    return "".join(parts)


def fill(pattern: str, values: Mapping[str, str]) -> list[str]:
    """Return the text between each `{any}` of a pattern, its other placeholders filled; a single part is a plain path.

    Raises:
        ConfigError: It holds a placeholder that `values` does not give.

    Example:
        >>> fill("{subject}/{any}_mask.nii.gz", {"subject": "01"})
        ['01/', '_mask.nii.gz']
    """
    pieces = [""]
    for place, part in enumerate(_GAP.split(pattern)):
        if place % 2 == 0:
            pieces[-1] += part
        elif _known(part, pattern) == "any":
            pieces.append("")
        elif part in values:
            pieces[-1] += values[part]
        else:
            remedy = f"the scan's own pattern gives {', '.join(values)}"
            raise ConfigError(
                "a mask's pattern takes only placeholders of the scan", received=repr(pattern), remedy=remedy
            )
    return pieces


def _known(name: str, pattern: str) -> str:
    if name not in GAPS:
        remedy = suggestion(name, list(GAPS))
        raise ConfigError(
            "a pattern takes known placeholders only", received=f"{{{name}}}", where=pattern, remedy=remedy
        )
    return name


class FolderSettings(Config):
    """How files are named, from the folder given on.

    Args:
        pattern: The scans; placeholders are `{subject}`, `{session}`, `{modality}`, `{site}`, and `{any}`.
        lesion: Its lesion mask, with placeholders of the scan and `{any}`; `None` where there are none.
        brain_mask: The same for its brain mask.
        modality: Contrast of every scan, where the pattern has no `{modality}`.
        modalities: What a word in place of `{modality}` means, `{"t2": "T2w"}`; where it is given, other words are no
            scans, otherwise every word is a contrast.
        pathology: Of every scan; `None` = unknown.
        site: Of every scan, where the pattern has no `{site}`.
        space: "native", or the template's name where all scans are registered to it.
    """

    pattern: str = Field(min_length=1)
    lesion: str | None = None
    brain_mask: str | None = None
    modality: str | None = None
    modalities: dict[str, str] = Field(default_factory=dict)
    pathology: str | None = None
    site: str | None = None
    space: Space = "native"


@SOURCES.register("folder")
class FolderSource(Source):
    """Reads every file that fits the pattern; one that is the mask of another, or is named as a mask, is no scan.

    A pattern whose own text ends as a mask's name does, or a word of `modalities`, says that such files are meant.

    Raises:
        ConfigError: A pattern has an unknown placeholder, none for the subject, or the modality is not given once.
    """

    Settings = FolderSettings
    settings: FolderSettings

    def __init__(self, settings: FolderSettings) -> None:
        self.settings = settings
        self.layout = f"files named '{settings.pattern}'"
        self._regex = to_regex(settings.pattern)
        forms = (_GAP.sub("", settings.pattern), _GAP.sub("any", settings.pattern))
        self._means_masks = any(is_named_as_mask(Path(form)) for form in forms)
        given = set(re.compile(self._regex).groupindex)
        for mask in (settings.lesion, settings.brain_mask):
            fill(mask or "", dict.fromkeys(given, ""))
        for name in ("modality", "site"):
            if name in given and getattr(settings, name) is not None:
                rule = f"'{name}' must be given once: by {{{name}}} in the pattern or by the setting"
                raise ConfigError(rule, received="both", where="folder", remedy="remove one")
        if "modality" not in given and settings.modality is None:
            rule = "the modality must be given: by {modality} in the pattern or by the setting 'modality'"
            raise ConfigError(
                rule, received=repr(settings.pattern), where="folder", remedy="for example {subject}_{modality}.nii.gz"
            )

    @classmethod
    def with_modality(cls, settings: dict[str, Any], modality: str) -> dict[str, Any]:
        """Return the settings in which that is the contrast of all scans, where the pattern does not say it."""
        return settings if "{modality}" in str(settings.get("pattern")) else {"modality": modality, **settings}

    def collect(self, tree: FileTree, draft: Draft) -> None:
        """Add every scan; report missing masks and subjects whose labels are the same."""
        found = [(path, match.groupdict()) for path, match in tree.match(self._regex, prefix="")]
        masks = {path: {kind: self._masks(tree, kind, gaps, path) for kind in _MASKS} for path, gaps in found}
        taken = {mask for own in masks.values() for few in own.values() for mask in few}
        names: dict[str, str] = {}
        for path, gaps in found:
            word = gaps.get("modality", "")
            if (reason := self._no_scan(path, word, taken)) is not None:
                draft.leave_out(path, reason)
                continue
            name, subject = printable(tree.relative(path)), label(gaps["subject"].removeprefix("sub-"))
            if not subject or names.setdefault(subject, gaps["subject"]) != gaps["subject"]:
                other = f"its label '{subject}' equals that of '{names[subject]}'" if subject else "no letter or digit"
                draft.leave_out(path, "of a subject without a unique label")
                draft.report(name, f"the subject '{gaps['subject']}' has no unique label: {other}")
                continue
            own = {kind: self._the_one(masks[path][kind], kind, name, draft) for kind in _MASKS}
            draft.add(self._record(path, subject, gaps, own))
        fitting = {path for path, _ in found}
        for name in tree.images():
            if tree.root / name not in fitting:
                draft.leave_out(tree.root / name, f"not named as '{self.settings.pattern}'")

    def _no_scan(self, path: Path, word: str, taken: Collection[Path]) -> str | None:
        """Return why a file that fits the pattern is no scan; `word` stands for `{modality}`, `taken` are masks."""
        if path in taken:
            return "masks of other scans"
        if self.settings.modalities:
            return None if word in self.settings.modalities else "of a contrast that is not in 'modalities'"
        return "named as masks" if is_named_as_mask(path) and not self._means_masks else None

    def _masks(self, tree: FileTree, kind: str, gaps: Gaps, scan: Path) -> list[Path]:
        pieces = fill(getattr(self.settings, kind) or "", gaps)
        if len(pieces) == 1:
            only = tree.first(tree.root / pieces[0])
            return [only] if only and only != scan else []
        pattern = "[^/]*".join(map(re.escape, pieces))
        return [path for path, _ in tree.match(pattern, prefix=pieces[0]) if path != scan]

    def _the_one(self, masks: list[Path], kind: str, scan: str, draft: Draft) -> Path | None:
        if len(masks) == 1 or getattr(self.settings, kind) is None:
            return masks[0] if masks else None
        what = kind.replace("_", " ")
        how_many = f"{len(masks)} files could be its {what}" if masks else f"no {what}"
        draft.report(scan, f"{how_many}; it is listed without one")
        return None

    def _record(self, path: Path, subject: str, gaps: Gaps, masks: dict[str, Path | None]) -> ScanRecord:
        word = gaps.get("modality", "")
        return ScanRecord(
            subject=subject,
            image=path,
            modality=self.settings.modality or self.settings.modalities.get(word) or label(word),
            session=label(gaps.get("session", "").removeprefix("ses-")) or None,
            brain_mask=masks["brain_mask"],
            lesion=masks["lesion"],
            space=self.settings.space,
            pathology=self.settings.pathology,
            site=gaps.get("site", self.settings.site),
        )
