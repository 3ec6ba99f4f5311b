"""Which scans of a manifest a command is asked for; a word that no scan has is refused, not passed over."""

from collections.abc import Sequence

from halebrain.core.errors import UsageError
from halebrain.core.modality import standard_modality
from halebrain.core.registry import suggestion
from halebrain.io.manifest import Manifest, standard_pathology


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
