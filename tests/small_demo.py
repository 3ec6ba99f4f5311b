"""The whole method at toy size, which many tests begin with, and its patient as other scanners would store the scan."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from halebrain.io.manifest import Manifest, ScanRecord


@dataclass(frozen=True)
class SmallDemo:
    """What `halebrain demo --train --quick` left in a folder."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "stage2" / "model"

    def patient(self) -> ScanRecord:
        manifest = Manifest.read(self.folder / "cohort" / "manifest.tsv")
        return next(r for r in manifest if r.pathology == "tumour" and r.modality == "FLAIR")


def stored_otherwise(record: ScanRecord, path: Path) -> nibabel.Nifti1Image:
    """Write the stripped scan with axes permuted and flipped (S, P, L order), and every second slice dropped."""
    image = nibabel.load(record.image)
    data = np.asarray(image.dataobj, dtype=np.float32)
    if record.brain_mask is not None:
        data = data * (np.asarray(nibabel.load(record.brain_mask).dataobj) > 0)
    plain = nibabel.as_closest_canonical(nibabel.Nifti1Image(data, image.affine)).slicer[:, :, ::2]
    wanted = nibabel.orientations.axcodes2ornt("SPL")
    turned = plain.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(plain.affine), wanted))
    turned.set_sform(turned.affine, code=1)
    turned.set_qform(turned.affine, code=1)
    assert nibabel.aff2axcodes(turned.affine) == ("S", "P", "L")
    nibabel.save(turned, path)
    return turned


def as_bids(scan: Path, folder: Path) -> Path:
    """Put a scan into a BIDS data set `study`; return the data set."""
    raw = folder / "study" / "sub-01" / "anat" / "sub-01_FLAIR.nii.gz"
    raw.parent.mkdir(parents=True)
    shutil.copy(scan, raw)
    about = {"Name": "study", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (folder / "study" / "dataset_description.json").write_text(json.dumps(about))
    return folder / "study"
