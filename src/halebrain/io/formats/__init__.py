"""The formats that scans come in: one file and one line here for each."""

from halebrain.io.formats.base import FORMATS, Image, ScanFormat
from halebrain.io.formats.dicom import read_dicom_image
from halebrain.io.formats.mgh import read_mgh
from halebrain.io.formats.nifti import read_nifti
from halebrain.io.formats.pair import read_pair

__all__ = ["FORMATS", "Image", "ScanFormat", "read_dicom_image", "read_mgh", "read_nifti", "read_pair"]
