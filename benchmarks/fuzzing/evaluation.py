"""Folders of anyone's maps or masks against references, through `halebrain evaluate`."""

import functools
from pathlib import Path
from random import Random

import numpy as np

from fuzzing.base import Attempt, command, kind
from fuzzing.damage import JUNK
from fuzzing.mask import save, spoilt_mask
from fuzzing.nifti import AFFINE, head

_NAMES = ("sub-1_mask", "sub-1_ses-2_probseg", "a", "sub-1_T1w", "sub-2_mask", "ü b")
_ENDINGS = (".nii.gz", ".nii.gz", ".nii", ".mgz", ".NII.GZ", ".hdr")


@kind("evaluation", weight=4)
def evaluation(random: Random, folder: Path) -> Attempt:
    """Write predictions, references and perhaps brain masks, and evaluate them."""
    done = []
    names = random.sample(_NAMES, random.choice((1, 1, 2)))
    for side in ("predictions", "references"):
        (folder / side).mkdir()
        for name in names:
            about, data, affine = spoilt_mask(random)
            if random.random() < 0.1:
                about, name = f"{about} by another name", random.choice(_NAMES)
            ending = random.choice(_ENDINGS)
            save(folder / side / f"{name}{ending.lower()}", data, affine)
            (folder / side / f"{name}{ending.lower()}").rename(folder / side / f"{name}{ending}")
            done.append(about)
    if random.random() < 0.1:
        (folder / "references" / random.choice(("x.nii.gz", "x.txt", ".DS_Store"))).write_bytes(random.choice(JUNK))
        done.append("another file")
    options: list[object] = []
    if random.random() < 0.4:
        options += ["--threshold", random.choice(("0.5", "0.5", "0", "-1", "nan", "inf", "x", "1e400"))]
    if random.random() < 0.4:
        options += ["--labels", random.choice(("all", "1", "2,4", "", "x", "1,", "0", "-1", "9" * 30))]
    if random.random() < 0.3:
        (folder / "brains").mkdir()
        for name in names:
            save(folder / "brains" / f"{name}.nii.gz", (head() > 0).astype(np.uint8), AFFINE)
        options += ["--brain-masks", folder / "brains"]
    arguments = ("--predictions", folder / "predictions", "--references", folder / "references", *options)
    run = functools.partial(command, "evaluate", "-o", folder / "out", *arguments, "--no-progress")
    return Attempt(f"{', '.join(done)} {' '.join(map(str, options))}"[:200], run)
