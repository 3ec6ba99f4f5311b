"""The pictures of the documents, made anew by the package's own commands and the bundled model.

    python benchmarks/screenshots.py --data FOLDER --output docs/images --work DIR [--only report.png view.png]

FOLDER is that of the tests (HALEBRAIN_TEST_DATA). Nobody's scan is shown, only virtual patients, in brains made of its
whole-head T1 scans (OpenfMRI ds000011). What is done in DIR is not done again: for another model, and after a change of
the pages, give another DIR. The browser is the system's Chromium, or that of HALEBRAIN_CHROMIUM.

demo.png takes a minute, the others a few. The five matrix_*.png are not made here: they lie in
`figures/` of `halebrain benchmark -c cpu` (two hours), and belong to the run whose tables are in docs/results.
"""

import argparse
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
from PIL import Image

from halebrain.cli.view import open_server
from halebrain.inference.lesions import read_lesions
from halebrain.inference.outputs import OutputNames
from halebrain.io.manifest import Manifest, ScanRecord

PHONE = (390, 844)
WIDTH = 1180
WAIT_MS = 300_000
COHORT, DEMO_COHORT = "cohort/montage.png", "demo-train/cohort/montage.png"
COMMANDS = {
    COHORT: "cohort -o cohort --subjects 2 --patients 2 --seed 2026 --variety wide --t1 heads.tsv "
    "--modality T1w --modality T2w --modality FLAIR --pathology ms --pathology stroke --pathology tumour "
    "--pathology wmh --pathology haemorrhage --pathology cavity --pathology mass",
    "scans/index.html": "detect -i shown.tsv -o scans",
    "evaluation/index.html": "evaluate --manifest people.tsv --split all -o evaluation",
    "prepared/index.html": "prepare -i people.tsv -o prepared",
    "matrix/index.html": "benchmark -c tiny -o matrix",
    # The cohort of `halebrain demo --train`.
    DEMO_COHORT: "cohort -o demo-train/cohort --subjects 48 --patients 12 --modality FLAIR "
    "--pathology stroke --pathology ms --pathology tumour",
    "demo/mosaic.png": "demo -o demo",
}
"""The last file that a command writes → the command; paths count from DIR."""


@dataclass(frozen=True)
class Studio:
    """Makes what is shown, each thing once, and opens it.

    Args:
        data: Folder of real MRI.
        work: Where everything that is made is kept.
        browser: Chromium.
    """

    data: Path
    work: Path
    browser: Any

    def made(self, last: str) -> Path:
        """Return a file of `COMMANDS`; its command is run if the file is not there."""
        path = self.work / last
        if not path.exists():
            words = ["halebrain", *shlex.split(COMMANDS[last]), "--no-progress"]
            if {"people.tsv", "shown.tsv"} & set(words):
                self.people()
            print(*words, flush=True)
            subprocess.run([Path(sys.executable).with_name("halebrain"), *words[1:]], cwd=self.work, check=False)
            if not path.exists():
                raise SystemExit(f"it did not write {path}")
        return path

    def people(self) -> Manifest:
        """Return two virtual people of each kind, 901 and 902, whose names no model knows; write their tables."""
        heads = sorted((self.data / "healthy_wholehead_t1_t2_ds000011").glob("*_T1w.nii.gz"))
        rows = [ScanRecord(path.name[4:6], path, "T1w", pathology="healthy") for path in heads]
        Manifest(tuple(rows)).write(self.work / "heads.tsv")
        made = Manifest.read(self.made(COHORT).with_name("manifest.tsv"))
        people = Manifest(tuple(replace(row, subject=row.subject.replace("00", "90"), split=None) for row in made))
        people.write(self.work / "people.tsv")
        broken = self.work / "broken_FLAIR.nii.gz"
        broken.write_bytes(b"no scan")
        Manifest((*flair(people), ScanRecord("broken", broken, "FLAIR"))).write(self.work / "shown.tsv")
        return people

    def found(self, row: ScanRecord) -> OutputNames:
        """Return the files of the detection of a scan."""
        return OutputNames(self.made("scans/index.html").parent / row.scan_id, row.scan_id)

    def doubted(self, row: ScanRecord) -> bool:
        """Return whether the page of a scan withholds a verdict."""
        return bool(json.loads(self.found(row).provenance.read_text(encoding="utf-8"))["qc"]["out_of_distribution"])

    def patient(self) -> Path:
        """Return the page of the first patient with a tumour that is not doubted."""
        patients = [row for row in flair(self.people()) if row.pathology == "tumour"]
        return self.found(min(patients, key=self.doubted)).page

    def right(self, row: ScanRecord) -> list[bool]:
        """Return for each finding of a scan whether its peak lies in the lesion."""
        lesion = None if row.lesion is None else nibabel.load(row.lesion).dataobj
        found = read_lesions(self.found(row).file("anomaly", "lesions", ".tsv"))
        return [lesion is not None and bool(lesion[one.peak] > 0) for one in found]

    @contextmanager
    def window(self, address: str, size: tuple[int, int], **look: Any) -> Iterator[Any]:
        """Open a page in a window of its own."""
        context = self.browser.new_context(viewport={"width": size[0], "height": size[1]}, **look)
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        page.goto(address)
        yield page
        context.close()


def flair(people: Manifest) -> Manifest:
    """Return the scans that `detect` is shown."""
    return people.select(lambda row: row.modality == "FLAIR")


def index(folder: str) -> Callable[[Studio], Path]:
    """Return what gives the page that a command writes into a folder."""
    return lambda studio: studio.made(f"{folder}/index.html")


def taken(page: Any) -> Image.Image:
    """Return what a window shows once nothing moves any more."""
    page.wait_for_timeout(1500)
    return Image.open(io.BytesIO(page.screenshot()))


def shot(
    page_of: Callable[[Studio], Path], size: tuple[int, int], studio: Studio, *, to: str | None = None, **look: Any
) -> Image.Image:
    """Return the top of a page, or what lies around a part of it."""
    with studio.window(page_of(studio).as_uri(), size, **look) as page:
        if page.locator("#plane-axial").count():
            page.wait_for_selector("body[data-ready=yes]")
        if to is not None:
            page.locator(to).scroll_into_view_if_needed()
        return taken(page)


@contextmanager
def visit(studio: Studio, height: int) -> Iterator[tuple[Any, list[bool]]]:
    """Let `halebrain view` show a copy of the scans; open one with two findings or so, right and wrong."""
    rights = {row: studio.right(row) for row in flair(studio.people())}
    row = min(rights, key=lambda one: (studio.doubted(one), len(set(rights[one])) < 2, abs(len(rights[one]) - 2)))
    copy = studio.work / "visited"
    shutil.rmtree(copy, ignore_errors=True)
    server = open_server(Path(shutil.copytree(studio.found(row).folder.parent, copy)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with studio.window(server.access.address(server.access.ticket()), (WIDTH, height)) as page:
        page.click(f"#scans a:text-is('{row.scan_id}')")
        page.wait_for_selector("body[data-review=yes]")
        yield page, rights[row]
    server.shutdown()
    server.stop()


def review(studio: Studio) -> Image.Image:
    """Return a review that accepted what is right and rejected the rest, last."""
    with visit(studio, 1290) as (page, rights):
        for number, right in sorted(enumerate(rights), key=lambda one: not one[1]):
            page.click(f"[data-finding='{number}']")
            if not right:
                page.fill("#note", "no lesion here")
            page.click("#accept" if right else "#reject")
            page.wait_for_selector(f"#findings tbody tr:nth-child({number + 1}).{'accepted' if right else 'rejected'}")
        page.evaluate("window.scrollTo(0, 0)")
        return taken(page)


def lowered(studio: Studio) -> Image.Image:
    """Return the findings at seven tenths of the threshold."""
    with visit(studio, 800) as (page, _):
        page.eval_on_selector("#threshold", "e => { e.value *= 0.7; e.dispatchEvent(new Event('input')); }")
        page.wait_for_selector("#live-findings tbody tr")
        page.wait_for_timeout(1500)
        page.eval_on_selector("#live-findings", "e => e.closest('section').scrollIntoView({ block: 'end' })")
        return taken(page)


def montage(studio: Studio) -> Image.Image:
    """Return the cohort of the demo, no wider than a page."""
    picture = Image.open(studio.made(DEMO_COHORT)).convert("RGB")
    return picture.resize((1000, round(picture.height * 1000 / picture.width)), Image.Resampling.LANCZOS)


PICTURES: dict[str, Callable[[Studio], Image.Image]] = {
    "report.png": partial(shot, Studio.patient, (WIDTH, 1500)),
    "report_findings.png": partial(shot, Studio.patient, (WIDTH, 1500), to="#findings"),
    "report_phone.png": partial(shot, Studio.patient, PHONE, color_scheme="dark"),
    "view.png": review,
    "view_live.png": lowered,
    "scans.png": partial(shot, index("scans"), (WIDTH, 900)),
    "scans_phone.png": partial(shot, index("scans"), PHONE, color_scheme="dark"),
    "evaluation.png": partial(shot, index("evaluation"), (WIDTH, 1100)),
    "quality.png": partial(shot, index("prepared"), (1280, 790), device_scale_factor=0.8),
    "benchmark.png": partial(shot, index("matrix"), (WIDTH, 900)),
    "cohort.png": montage,
    "demo.png": lambda studio: Image.open(studio.made("demo/mosaic.png")),
}
"""Name of a picture → what takes it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=PICTURES, default=list(PICTURES), metavar="NAME")
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    for folder in (arguments.work, arguments.output):
        folder.mkdir(parents=True, exist_ok=True)
    # The bundled model is shown, whatever was imported under its name.
    os.environ["HALEBRAIN_HOME"] = str(arguments.work.resolve() / "home")
    chromium = os.environ.get("HALEBRAIN_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as session:
        # A sandbox inside a container has no rights to be one.
        browser = session.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        studio = Studio(arguments.data.resolve(), arguments.work.resolve(), browser)
        for name in arguments.only:
            picture = PICTURES[name](studio).convert("RGB")
            # The first keeps the few pixels that have a colour, the second the many that are grey.
            small = picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
            small.save(arguments.output / name, optimize=True)
            print(arguments.output / name, *picture.size, flush=True)
        browser.close()


if __name__ == "__main__":
    main()
