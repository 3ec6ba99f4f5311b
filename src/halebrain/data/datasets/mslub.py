"""MSLUB: multiple sclerosis, 30 patients with lesions agreed on by three raters, and a set of pairs in time.

Layouts: the laboratory's archives (doi:10.1007/s12021-017-9348-7), `patient01/patient01_{FLAIR,T1W,T1WKS,T2W}.nii.gz`
with `patient01_consensus_gt`, `patient01_brainmask` and `patient01/raw/`; and their mirror open_ms_data, which has
`{coregistered,raw,MNI}/patient01/{FLAIR,…,brainmask,consensus_gt}.nii.gz`. Beside them `patient_info.csv`.
Longitudinal patients (`study1_FLAIR.nii.gz`) are other people under the same numbers; their mask is of *changes*, so
they have no lesion here.
"""

from pathlib import Path
from typing import Literal

from halebrain.core.config import Config
from halebrain.data.datasets.base import SOURCES, Draft, Source
from halebrain.data.datasets.tables import column, parse_age, parse_sex, read_rows
from halebrain.io.manifest import ScanRecord
from halebrain.io.tables import Row
from halebrain.io.tree import NIFTI, FileTree

_FOLDER = r"(?:longitudinal_)?patient(\d+)(?:_raw|_MNI)?"
_CONTRAST = r"(FLAIR|T1WKS|T1POST|T1W|T1|T2W|T2)(?:_N4_[^/]*regtoMNI)?"
_SCAN = rf"{_FOLDER}/(?:raw/)?(?:patient\d+_)?(?:study(\d)_)?{_CONTRAST}{NIFTI}"
_MODALITIES = {
    **{"FLAIR": "FLAIR", "T1W": "T1w", "T2W": "T2w", "T1WKS": "T1ce"},
    **{"T1": "T1w", "T2": "T2w", "T1POST": "T1ce"},
}
_MNI_LESION = "GOLD_STANDARD_N4_noneck_reduced_winsor_regtoFLAIR_regtoMNI"
Version = Literal["coregistered", "raw", "MNI"]


class MslubSettings(Config):
    """Which of the versions of each scan is meant.

    Args:
        version: "coregistered" = on the grid of FLAIR, bias-corrected, with a brain mask; "raw" = as acquired, where
            only FLAIR has lesion and brain mask; "MNI" = open_ms_data's, stripped, in MNI space.
    """

    version: Version = "coregistered"


@SOURCES.register("mslub")
class MslubSource(Source):
    """Reads every contrast of every patient in one version; age and sex where `patient_info.csv` is there."""

    Settings = MslubSettings
    settings: MslubSettings
    layout = "MSLUB's patients (patient01/patient01_FLAIR.nii.gz or coregistered/patient01/FLAIR.nii.gz)"

    def collect(self, tree: FileTree, draft: Draft) -> None:
        """Add every scan of the version asked for; report the patients without mask or lesion."""
        people = {path.parent: _by_number(read_rows(path)) for path, _ in tree.match(r"patient_info\.csv")}
        others: set[str] = set()
        lacking: set[tuple[str, str]] = set()
        for path, found in tree.match(_SCAN):
            number, study, contrast = int(found[1]), found[2], found[3]
            version, modality, name = _version(tree, path), _MODALITIES[contrast], f"patient{number:02d}"
            if version != self.settings.version:
                others.add(version)
                continue
            lesion = mask = None
            if not study and (version != "raw" or modality == "FLAIR"):
                lesion = _companion(tree, path, name, "consensus_gt", _MNI_LESION)
                lacking |= {(name, "lesion")} if lesion is None else set()
                mask = _companion(tree, path, name, "brainmask")
                lacking |= {(name, "brain mask")} if mask is None and version == "coregistered" else set()
            row = next((people[folder].get(number, {}) for folder in path.parents if folder in people), {})
            draft.add(
                ScanRecord(
                    subject=f"long{name}" if study else name,
                    image=path,
                    modality=modality,
                    session=study,
                    brain_mask=mask,
                    lesion=lesion,
                    pathology="ms",
                    site="Ljubljana",
                    age=parse_age(column(row, "age")),
                    sex=parse_sex(column(row, "sex")),
                )
            )
        for name, what in sorted(lacking):
            draft.report(name, f"no {what}; its scans are listed without one")
        if others and not draft.records():
            draft.report("version", f"the folder holds {' and '.join(sorted(others))}, not {self.settings.version}")


def _version(tree: FileTree, path: Path) -> Version:
    parts = path.relative_to(tree.root).parts
    if "regtoMNI" in path.name:
        return "MNI"
    return "raw" if any(part == "raw" or part.endswith("_raw") for part in (*parts, tree.root.name)) else "coregistered"


def _companion(tree: FileTree, scan: Path, name: str, *stems: str) -> Path | None:
    """Return the first file of a patient with one of the names, which lies above `raw` in the laboratory's archives."""
    folder = scan.parents[1] if scan.parent.name == "raw" else scan.parent
    names = [f"{prefix}{stem}{end}" for stem in stems for prefix in (f"{name}_", "") for end in (".nii.gz", ".nii")]
    return tree.first(*(folder / candidate for candidate in names))


def _by_number(rows: list[Row]) -> dict[int, Row]:
    """Return the rows of a table by the number of the patient, whether given as 1 or patient01."""
    found = {}
    for row in rows:
        digits = "".join(filter(str.isdigit, column(row, "patient_id", "patient", "id")))
        if digits:
            found[int(digits)] = row
    return found
