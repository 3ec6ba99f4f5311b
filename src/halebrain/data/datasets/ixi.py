"""IXI: some 600 healthy adults from three London hospitals, whole head.

Layout: brain-development.org's archives as unpacked, `IXI-T1/IXI002-Guys-0828-T1.nii.gz`, beside them `IXI.xls` or the
same saved as `IXI.csv`. The publisher's table lists some people twice, a few of them with two ages.
"""

from collections import defaultdict

from halebrain.data.datasets.base import SOURCES, Draft, Source
from halebrain.data.datasets.tables import column, parse_age, read_rows, read_sheet, sex_of, the_one
from halebrain.io.manifest import ScanRecord
from halebrain.io.tables import Row
from halebrain.io.tree import NIFTI, FileTree

_SCAN = rf"(IXI\d{{3}})-(Guys|HH|IOP)-\d+-(T1|T2|PD){NIFTI}"
_MODALITIES = {"T1": "T1w", "T2": "T2w", "PD": "PDw"}


@SOURCES.register("ixi")
class IxiSource(Source):
    """Reads T1w, T2w and PDw scans; angiograms and diffusion are passed over. Age and sex where the table is there."""

    layout = "IXI's scans as published (IXI-T1/IXI002-Guys-0828-T1.nii.gz)"

    def collect(self, tree: FileTree, draft: Draft) -> None:
        """Add every scan with its hospital as site."""
        people = _read_people(tree, draft)
        conflicting: set[str] = set()
        for path, found in tree.match(_SCAN):
            subject, site, kind = found.groups()
            rows = people.get(subject, [])
            ages = [parse_age(column(row, "AGE")) for row in rows]
            age = the_one(ages)
            if age is None and any(ages) and subject not in conflicting:
                conflicting.add(subject)
                draft.report(subject, f"two ages, {' and '.join(f'{a:g}' for a in ages if a)}; its age is left out")
            draft.add(
                ScanRecord(
                    subject=subject,
                    image=path,
                    modality=_MODALITIES[kind],
                    pathology="healthy",
                    site=site,
                    age=age,
                    sex=the_one(sex_of(row) for row in rows),
                )
            )


def _read_people(tree: FileTree, draft: Draft) -> dict[str, list[Row]]:
    """Return the rows of the publisher's table by subject; none where there is no table that can be read."""
    rows: list[Row] = []
    tables = [path for path, _ in tree.match(r"[^/]*IXI[^/]*\.csv")]
    if tables:
        rows = [row for path in tables for row in read_rows(path)]
    for path, _ in [] if tables else list(tree.match(r"IXI\.xls")):
        sheet = read_sheet(path)
        if sheet is None:
            problem = "cannot be read, ages and sexes are left out; save it as IXI.csv or pip install 'halebrain[ixi]'"
            draft.report(tree.relative(path), problem)
        rows += sheet or []
    people: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        number = column(row, "IXI_ID").removeprefix("IXI").removesuffix(".0")
        if number.isdigit():
            people[f"IXI{int(number):03d}"].append(row)
    return people
