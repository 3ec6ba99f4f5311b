"""Which scans of a manifest a command takes: those that are asked for, and none of which the model learned.

A word that no scan has is refused, not passed over.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from halebrain.core.errors import DataError, UsageError
from halebrain.core.messages import Notify
from halebrain.core.modality import standard_modality
from halebrain.core.registry import suggestion
from halebrain.core.wording import counted, first_of
from halebrain.io.manifest import Manifest, standard_pathology

if TYPE_CHECKING:
    from halebrain.inference.predictor import Predictor


def chosen_scans(rows: Manifest, *, table: Manifest, modalities: Sequence[str], pathologies: Sequence[str]) -> Manifest:
    """Return the rows of some contrasts and diseases; no words = all.

    Args:
        rows: A part of the table, such as a split; a disease may be absent from it.
        table: The whole table.
        modalities: Words of `--modality`.
        pathologies: Words of `--pathology`.

    Raises:
        UsageError: No scan of the table has one of the words.
    """
    check_words(table, modalities, pathologies)
    diseases = {standard_pathology(word) for word in pathologies}
    return rows.of_contrasts(modalities).select(lambda row: not diseases or row.pathology in diseases)


def check_words(table: Manifest, modalities: Sequence[str], pathologies: Sequence[str]) -> None:
    """Refuse words of `--modality` and `--pathology` that no scan of a table has."""
    contrasts = {row.contrast for row in table}
    diseases = {row.pathology for row in table if row.pathology is not None}
    for flag, words, known in (
        ("--modality", {word: standard_modality(word) for word in modalities}, contrasts),
        ("--pathology", {word: standard_pathology(word) for word in pathologies}, diseases),
    ):
        if wrong := [word for word, standard in words.items() if standard not in known]:
            raise UsageError(
                f"{flag} must be in the manifest",
                received=repr(wrong[0]),
                where=table.where,
                remedy=suggestion(wrong[0], sorted(known)),
            )


def refuse_seen(rows: Manifest, seen: dict[str, str], purpose: str) -> None:
    """Stop if a subject was used to train or calibrate the model: its score would be too good.

    `seen` is subject → in what it took part, `purpose` what must not happen to them ("evaluated").
    """
    taken = [subject for subject in rows.subjects() if subject in seen]
    if taken:
        raise DataError(
            f"a scan used in training or calibration must not be {purpose}",
            received=first_of([f"{s} ({seen[s]})" for s in taken]),
            where=rows.where,
            remedy="use scans of another split, or rename subjects that are other people (halebrain cohort --prefix)",
        )


def tell_flagged(flagged: Mapping[str, Sequence[str]], total: int, notify: Notify) -> None:
    """Say how many of the scans that count have quality flags, and of each flag how many scans, with the first."""
    if not flagged:
        return
    scans: dict[str, list[str]] = {}
    for name, flags in flagged.items():
        for flag in flags:
            scans.setdefault(flag, []).append(name)
    have = f"{len(flagged)} of {counted(total, 'scan')} {'has' if len(flagged) == 1 else 'have'} quality flags"
    each = [f"{flag} ({first_of(names, 1)})" for flag, names in sorted(scans.items(), key=lambda item: -len(item[1]))]
    notify(f"warning: {have} and {'counts' if len(flagged) == 1 else 'count'}: {'; '.join(each)}")


def tell_without_evidence(rows: Manifest, predictor: "Predictor", notify: Notify) -> None:
    """Warn where scans are of a contrast that the healthy map lacks, so that the segmenter alone scores them."""
    alone = rows.select(lambda record: not predictor.has_evidence(record.contrast))
    if len(alone):
        contrasts = ", ".join(sorted({record.modality for record in alone}))
        said = (
            f"the segmenter alone scores {counted(len(alone), 'scan')}, as the model has no healthy map of {contrasts}"
        )
        notify(f"warning: {said}; the threshold was chosen on scores with the residual, and marks less there")
