"""Patterns for file names with named placeholders: `{subject}/{session}/{modality}.nii.gz`."""

import re
from collections.abc import Mapping

from halebrain.core.errors import ConfigError
from halebrain.core.registry import suggestion

GAPS = ("subject", "session", "modality", "site", "any")
_GAP = re.compile(r"\{([^{}]*)\}")


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
    parts, seen, at = [], set(), 0
    for gap in _GAP.finditer(pattern):
        name = gap[1]
        _check(name, pattern)
        parts.append(re.escape(pattern[at : gap.start()]))
        at = gap.end()
        if name == "any":
            parts.append("[^/]*")
        else:
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+)")
            seen.add(name)
    if "subject" not in seen:
        raise ConfigError(
            "a pattern must hold {subject}",
            received=repr(pattern),
            where="pattern",
            remedy="for example {subject}_T1w.nii.gz",
        )
    return "".join((*parts, re.escape(pattern[at:])))


def fill(pattern: str, values: Mapping[str, str]) -> list[str]:
    """Return the text between each `{any}` of a pattern, its other placeholders filled; a single part is a plain path.

    Raises:
        ConfigError: It holds a placeholder that `values` does not give.

    Example:
        >>> fill("{subject}/{any}_mask.nii.gz", {"subject": "01"})
        ['01/', '_mask.nii.gz']
    """
    pieces, at = [""], 0
    for gap in _GAP.finditer(pattern):
        _check(gap[1], pattern)
        pieces[-1] += pattern[at : gap.start()]
        at = gap.end()
        if gap[1] == "any":
            pieces.append("")
        elif gap[1] in values:
            pieces[-1] += values[gap[1]]
        else:
            remedy = f"the scan's own pattern gives {', '.join(values)}"
            raise ConfigError(
                "a mask's pattern takes only placeholders of the scan", received=repr(pattern), remedy=remedy
            )
    pieces[-1] += pattern[at:]
    return pieces


def _check(name: str, pattern: str) -> None:
    if name not in GAPS:
        remedy = suggestion(name, list(GAPS))
        raise ConfigError(
            "a pattern takes known placeholders only", received=f"{{{name}}}", where=pattern, remedy=remedy
        )
