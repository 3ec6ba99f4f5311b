"""HaleBrain finds what is abnormal in a brain MRI.

Importing the package is cheap: the heavy libraries (torch, SimpleITK, nilearn) are imported by the modules
that use them, so that `halebrain --help` answers at once. The names below are the promised Python API.
"""

__version__ = "0.1.0"
