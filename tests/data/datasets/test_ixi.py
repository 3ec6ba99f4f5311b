import sys
from types import SimpleNamespace

import pytest

from halebrain.data.datasets import read_source

HEADER = 'IXI_ID,"SEX_ID (1=m, 2=f)",HEIGHT,WEIGHT,ETHNIC_ID,MARITAL_ID,OCCUPATION_ID,QUALIFICATION_ID,'
HEADER += "DATE_AVAILABLE,STUDY_DATE,AGE\n"
SCANS = ("IXI-T1/IXI002-Guys-0828-T1.nii.gz", "IXI-T1/IXI219-Guys-0894-T1.nii.gz", "IXI-T1/IXI035-IOP-0873-T1.nii.gz")


def by_subject(result):
    return {record.subject: record for record in result.manifest}


def test_reads_names_sites_and_contrasts(tree):
    root = tree(*SCANS, "IXI-T2/IXI002-Guys-0828-T2.nii.gz", "IXI-PD/IXI012-HH-1211-PD.nii.gz")
    tree("IXI-MRA/IXI002-Guys-0828-MRA.nii.gz", "IXI-DTI/IXI002-Guys-0828-DTI-00.nii.gz")
    result = read_source("ixi", root)
    assert [r.scan_id for r in result.manifest if r.subject == "IXI002"] == ["sub-IXI002_T1w", "sub-IXI002_T2w"]
    people = by_subject(result)
    assert {s: p.site for s, p in people.items()} == {
        **{"IXI002": "Guys", "IXI219": "Guys", "IXI035": "IOP", "IXI012": "HH"},
    }
    assert people["IXI012"].modality == "PDw"
    assert all(p.is_healthy and p.age is None and p.sex is None for p in people.values())
    assert result.problems == ()


def test_ages_come_from_the_table_and_two_ages_are_no_age(tree):
    root = tree(*SCANS)
    rows = "2,2,164,58,4,4,1,5,1,2005-11-18,35.8\n219,2,170,104,1,2,1,4,1,2006-03-10,53.08\n"
    rows += "219,2,164,73,1,4,1,5,1,2006-03-10,58.07\n35,1,0,0,0,0,0,0,1,,\n"
    (root / "IXI.csv").write_text(HEADER + rows)
    result = read_source("ixi", root)
    people = by_subject(result)
    assert (people["IXI002"].age, people["IXI002"].sex) == (35.8, "F")
    assert (people["IXI219"].age, people["IXI219"].sex) == (None, "F")
    assert (people["IXI035"].age, people["IXI035"].sex) == (None, "M")
    assert result.problems == ("IXI219: two ages, 53.08 and 58.07; its age is left out",)


@pytest.mark.parametrize("reader", [True, False])
def test_the_spreadsheet_is_read_where_a_reader_is_there(tree, monkeypatch, reader):
    root = tree(*SCANS, "IXI.xls")
    table = [["IXI_ID", "SEX_ID (1=m, 2=f)", "AGE"], [2.0, 2.0, 35.8]]
    sheet = SimpleNamespace(nrows=2, row=lambda n: [SimpleNamespace(value=value) for value in table[n]])
    book = SimpleNamespace(sheet_by_index=lambda n: sheet)
    module = SimpleNamespace(open_workbook=lambda path: book) if reader else None
    monkeypatch.setitem(sys.modules, "xlrd", module)
    result = read_source("ixi", root)
    record = by_subject(result)["IXI002"]
    assert (record.age, record.sex) == ((35.8, "F") if reader else (None, None))
    assert len(result.problems) == (0 if reader else 1)
    assert reader or "save it as IXI.csv" in result.problems[0]
