"""Random damage to everything that HaleBrain reads: one kind of input a file, each registered by `base.kind`."""

from fuzzing import bundle, config, detect, dicom, evaluation, manifest, mask, mgh, nifti, pair, results
