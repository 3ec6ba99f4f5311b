"""The formats that scans come in: one file and one line here for each."""

from halebrain.io.formats.base import FORMATS, Image, ScanFormat
from halebrain.io.formats.dicom import read_dicom_image
from halebrain.io.formats.hdr_img import read_hdr_img
from halebrain.io.formats.mgh import read_mgh
from halebrain.io.formats.nifti import read_nifti

__all__ = ["FORMATS", "Image", "ScanFormat", "read_dicom_image", "read_hdr_img", "read_mgh", "read_nifti"]
