"""A folder of results with one file damaged: its pages made again, and shown for review."""

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path
from random import Random

import nibabel

from fuzzing import model
from fuzzing.base import Attempt, command, kind
from fuzzing.damage import JUNK, changed, spoil_value
from fuzzing.detect import AFFINE, ball


@functools.cache
def _originals() -> Path:
    """Return a detection, for as long as this process lives."""
    place = Path(tempfile.mkdtemp(prefix="fuzz-results-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    nibabel.save(nibabel.Nifti1Image(ball(), AFFINE), place / "sub-1_T1w.nii.gz")
    where = ("-i", place / "sub-1_T1w.nii.gz", "-o", place / "out", "-m", model.folder())
    command("detect", *where, "--threshold", "0.5", "--no-progress")
    return place / "out"


@kind("results", weight=6)
def results(random: Random, folder: Path) -> Attempt:
    """Copy the results, damage one file, and make pages or show them."""
    out = folder / "out"
    shutil.copytree(_originals(), out)
    (out / "failed.tsv").write_text("scan\treason\nx\tbecause\n")
    (out / "sub-1_desc-anomaly_review.tsv").write_text("lesion\ti\tj\n1\t2\t3\n")
    if random.random() < 0.5:
        (out / "index.html").unlink(missing_ok=True)
    told = [path for path in sorted(out.iterdir()) if path.suffix in (".json", ".tsv", ".html")]
    victim = random.choice(told if random.random() < 0.8 else sorted(out.iterdir()))
    about = f"{victim.name}: {_spoil(victim, random)}"
    run = random.choice((_report, _report_at, _view, _view, _again))
    return Attempt(f"{run.__name__}: {about}", functools.partial(run, out))


def _spoil(path: Path, random: Random) -> str:
    raw = path.read_bytes()
    if path.suffix == ".json" and random.random() < 0.7:
        about, tree = spoil_value(json.loads(raw), random)
        path.write_text(json.dumps(tree))
        return about
    match random.randrange(6):
        case 0:
            path.unlink()
            return "gone"
        case 1:
            path.write_bytes(random.choice(JUNK))
            return "something else"
        case 2 if path.suffix == ".tsv":
            path.write_bytes(
                raw + random.choice((b"1\n", b'"\n', b"\0\n", b"\xff\n", b"x\t" * 40 + b"\n", b"z" * 200_000))
            )
            return "another row"
        case _:
            about, wrong = changed(raw, random)
            path.write_bytes(wrong)
            return about


def _report(out: Path) -> None:
    command("report", out, "--no-progress")


def _report_at(out: Path) -> None:
    command("report", out, "--threshold", "0.55", "--no-progress")


def _again(out: Path) -> None:
    """Ask for the same detection again, which finds it done, damaged, or another one."""
    source = _originals().parent / "sub-1_T1w.nii.gz"
    command("detect", "-i", source, "-o", out, "-m", model.folder(), "--threshold", "0.5", "--no-progress")


def _view(out: Path) -> None:
    """Do what a visit does: every page, and what was decided on it."""
    from halebrain.view.access import RefusalError
    from halebrain.view.files import PAGES, first_page
    from halebrain.view.visit import Visit

    start = first_page(out)
    visit = Visit(out, start or Path("index.html"), lambda *_: None)
    for path in sorted(out.rglob("*")):
        if path.name.endswith((*PAGES, "index.html")):
            try:
                visit.read("/" + path.relative_to(out).as_posix())
            except RefusalError:
                continue
