"""Tables: manifests, anyone's CSV or TSV, lists of scans; encodings, delimiters, quotes, long cells, headers."""

import functools
from pathlib import Path
from random import Random
from typing import Any

from fuzzing.base import Attempt, kind
from fuzzing.damage import JUNK, changed

_HEADER = [
    "subject",
    "image",
    "modality",
    "split",
    "pathology",
    "age",
    "sex",
    "brain_mask",
    "lesion",
    "session",
    "space",
]
_CELLS: tuple[str, ...] = (
    *("", "n/a", " ", "nan", "1e400", "-1", "a\tb", 'a"b', '"', "a\nb", "a\rb", "\0", "\x1b[31m", "ü\u2028x", "\ufeff"),
    *("../../../etc/passwd", "/dev/null", "/", ".", "x" * 300, "y" * 200_000, "a.nii#1", "a.nii#", "#1", "sub-", "~"),
    *("a/b", "train", "T1w", "healthy", "=1+1", "s1", "a;b", "a,b"),
)


@kind("table", weight=14)
def table(random: Random, folder: Path) -> Attempt:
    """Write a table beside two files, and read it as a manifest, as a source, or as an input of detect."""
    for name in ("a.nii", "b.nii.gz"):
        (folder / name).write_bytes(b"")
    rows = [_HEADER, *(_row(n) for n in range(random.choice((0, 1, 2, 2, 2, 30))))]
    done = [_spoil(rows, random) for _ in range(random.choice((0, 1, 1, 1, 2)))]
    if random.random() < 0.1:
        about, raw = "a list", "\n".join(random.choice((*_CELLS, "a.nii", "# x")) for _ in range(5)).encode()
    else:
        about, raw = _written(rows, random)
    if random.random() < 0.15:
        also, raw = changed(raw, random)
        done.append(also)
    name = random.choice(("t.tsv", "t.tsv", "t.csv", "t.CSV", "t.txt", "participants.tsv"))
    path = folder / name
    path.write_bytes(random.choice(JUNK) if random.random() < 0.02 else raw)
    read = random.choice((_manifest, _manifest, _scans, _source, _participants))
    return Attempt(f"{name} {read.__name__}: {about}, {', '.join(done)}"[:200], functools.partial(read, path))


def _row(number: int) -> list[str]:
    image = ("a.nii", "b.nii.gz")[number % 2]
    session = f"s{number}"
    return [f"p{number % 3}", image, "T1w", "train", "healthy", "41.5", "F", "n/a", "n/a", session, "native"]


def _spoil(rows: list[list[str]], random: Random) -> str:
    row = random.randrange(len(rows))
    if not rows[row]:
        return ""
    cell = random.randrange(len(rows[row]))
    match random.randrange(7):
        case 0:
            rows[row] = rows[row][:cell]
            return f"row {row} cut"
        case 1:
            rows[row] = rows[row] + ["more"] * random.choice((1, 3))
            return f"row {row} longer"
        case 2:
            rows.insert(row, [])
            return "an empty row"
        case 3:
            rows[0] = rows[0] + [random.choice(_HEADER)]
            return f"{rows[0][-1]} twice"
        case 4:
            rows[0] = [random.choice((word.upper(), f" {word} ", "", word)) for word in rows[0]]
            return "header changed"
        case _:
            rows[row] = [*rows[row][:cell], random.choice(_CELLS), *rows[row][cell + 1 :]]
            return f"row {row}, cell {cell} = {rows[row][cell]!r}"[:60]


def _written(rows: list[list[str]], random: Random) -> tuple[str, bytes]:
    delimiter = random.choice("\t\t\t,;|")
    ending = random.choice(("\n", "\n", "\r\n", "\r", "\n\n"))
    encoding = random.choice(("utf-8",) * 6 + ("utf-8-sig", "utf-8-sig", "utf-16", "latin-1", "utf-16-le"))
    quotes = random.random() < 0.2
    lines = [delimiter.join(f'"{cell}"' if quotes else cell for cell in row) for row in rows]
    text = ending.join(lines) + random.choice((ending, "", ending * 3))
    return f"{delimiter!r} {ending!r} {encoding}", text.encode(encoding, "replace")


def _manifest(path: Path) -> None:
    from halebrain.io.manifest import Manifest

    table = Manifest.read(path)
    table.write(path.parent / "again.tsv")
    again = Manifest.read(path.parent / "again.tsv")
    _same(table, again)


def _same(table: Any, again: Any) -> None:
    from fuzzing.base import check

    check(table.fingerprint() == again.fingerprint(), "a manifest that is another one after writing")


def _scans(path: Path) -> None:
    from halebrain.inference.scans import find_scans

    find_scans(path)


def _source(path: Path) -> None:
    from halebrain.data.datasets.base import read_source

    found = read_source("table", path)
    found.manifest.write(path.parent / "made.tsv")


def _participants(path: Path) -> None:
    from halebrain.io.bids_derivative import write_participants

    path.rename(path.parent / "participants.tsv")
    (path.parent / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    write_participants(path.parent / "out", path.parent)
