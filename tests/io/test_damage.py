"""Files with bytes changed or cut off: an error of ours in one line that names nobody, or a scan, and nothing else."""

import gzip
import logging

import nibabel
import numpy as np
import pytest
from dicom_maker import LOUD, Maker
from hypothesis import given, settings
from hypothesis import strategies as st

from halebrain.core.errors import HalebrainError
from halebrain.io.volume import read_volume

AFFINE = np.diag([-8.0, 8.0, 12.0, 1.0])
DAMAGE = st.tuples(
    st.integers(0, 1200), st.binary(min_size=1, max_size=8), st.one_of(st.none(), st.integers(0, 1800)), st.integers()
)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    data = np.random.default_rng(0).integers(0, 900, size=(8, 9, 10)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(data, AFFINE), folder / "a.nii")
    nibabel.save(nibabel.MGHImage(data, AFFINE), folder / "b.mgh")
    nibabel.save(nibabel.Nifti1Pair(data, AFFINE), folder / "c.hdr")
    image = nibabel.AnalyzeImage(data, None)
    nibabel.save(image, folder / "d.img")
    Maker(data.astype(np.uint16)).write(folder / "e")
    Maker(data.astype(np.uint16)).write_multi_frame(folder / "f.dcm")
    return folder


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "b.mgh", "b.mgz", "c.hdr", "d.hdr", "e", "f.dcm"])
def test_damage_is_told_in_one_line(originals, tmp_path_factory, name, monkeypatch):
    monkeypatch.setenv("HALEBRAIN_DICOM", "pydicom")
    # nibabel tells of doubtful headers in its own log, which says nothing of persons.
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)

    @settings(max_examples=20, deadline=None)
    @given(damage=DAMAGE)
    def attempt(damage):
        folder = tmp_path_factory.mktemp("d")
        path = _damaged(originals, folder, name, damage)
        message = _message(path)
        assert "\n" not in message
        assert not [word for word in LOUD if word in message]

    attempt()


def _message(path):
    try:
        read_volume(path)
    except HalebrainError as error:
        return str(error)
    return ""


def _damaged(originals, folder, name, damage):
    place, wrong, cut, which = damage
    stem = name.split(".")[0]
    source = originals / {"a": "a.nii", "b": "b.mgh"}.get(stem, name)
    for other in originals.glob(f"{stem}.img"):
        (folder / other.name).write_bytes(other.read_bytes())
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    target = folder / name
    if source.is_dir():
        target.mkdir()
    for number, file in enumerate(files):
        raw = bytearray(file.read_bytes())
        if number == which % len(files):
            raw[place : place + len(wrong)] = wrong
            raw = raw[:cut]
        packed = name.endswith((".gz", ".mgz"))
        (target / file.name if source.is_dir() else target).write_bytes(gzip.compress(bytes(raw)) if packed else raw)
    return target
