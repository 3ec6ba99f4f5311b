"""Ways to spoil bytes, fields of a header, and values of JSON or YAML."""

import copy
import gzip
import io
import struct
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np

WHOLE_NUMBERS = (0, 1, -1, 2, 3, 7, 8, 127, 128, 255, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**63 - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-3, 1e3, 1e38, -1e38, float("nan"), float("inf"), float("-inf"))
JUNK = (
    b"",
    b"\0" * 600,
    b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n",
    b"PK\x03\x04 no archive",
    b"\x1f\x8b\x08\x00 no gzip",
    b"\x89PNG\r\n\x1a\n",
    b"../.git/annex/objects/a/b/c.nii.gz",
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 10**9, 10**30, -1.5, float("nan"), float("inf"), "", "x", "a\nb", "\0", "\x1b[31m"),
    *("a" * 5000, "../../etc/passwd", "/dev/zero", [], {}, [1, "a"], {"x": {"y": 1}}, [[[]]], "ÄÖ\u2028", "1e400"),
)
"""What nobody expects in a file of settings."""


def changed(raw: bytes, random: Random) -> tuple[str, bytes]:
    """Return bytes with bits flipped, some overwritten, some taken out or put in, or their end cut off."""
    data = bytearray(raw)
    if not data:
        return "empty", raw
    place = random.randrange(len(data))
    match random.randrange(5):
        case 0:
            count = random.choice((1, 1, 2, 8, 64))
            for _ in range(count):
                data[random.randrange(len(data))] ^= 1 << random.randrange(8)
            return f"{count} bits flipped", bytes(data)
        case 1:
            wrong = random.randbytes(random.choice((1, 2, 4, 8, 16)))
            return f"bytes at {place} overwritten", bytes(data[:place]) + wrong + bytes(data[place + len(wrong) :])
        case 2:
            return f"cut at {place}", bytes(data[:place])
        case 3:
            count = random.choice((1, 2, 16, 256))
            return f"{count} bytes taken out at {place}", bytes(data[:place] + data[place + count :])
        case _:
            wrong = random.choice((b"\0" * 8, b"\xff" * 4, random.randbytes(16)))
            return f"bytes put in at {place}", bytes(data[:place]) + wrong + bytes(data[place:])


def spoil_field(header: np.ndarray[Any, Any], random: Random, names: tuple[str, ...] = ()) -> str:
    """Set a field of a header (a structured array of one item) to a value that is none; return what was done."""
    fields = header.dtype.names or ()
    name = random.choice(names or fields)
    field = header[name]
    if field.dtype.kind in "SV":
        header[name] = random.randbytes(field.dtype.itemsize)
        return f"{name} random"
    value = random.choice(FLOATS if field.dtype.kind == "f" else WHOLE_NUMBERS)
    with np.errstate(all="ignore"):
        wrong = np.array(value, dtype=np.float64 if field.dtype.kind == "f" else np.int64).astype(field.dtype)
    if field.ndim:
        place = random.randrange(field.size)
        header[name].flat[place] = wrong
        return f"{name}[{place}] = {wrong}"
    header[name] = wrong
    return f"{name} = {wrong}"


def packed(raw: bytes) -> bytes:
    """Return bytes as gzip, always the same."""
    return gzip.compress(raw, compresslevel=1, mtime=0)


def damaged_gzip(raw: bytes, random: Random) -> tuple[str, bytes]:
    """Return gzip that is damaged outside of what it holds: its content, if it can be read at all, is `raw`."""
    whole = packed(raw)
    match random.randrange(5):
        case 0:
            return "gzip checksum", whole[:-8] + struct.pack("<I", random.getrandbits(32)) + whole[-4:]
        case 1:
            return "gzip length", whole[:-4] + struct.pack("<I", random.getrandbits(32))
        case 2:
            cut = random.randrange(len(whole))
            return f"gzip cut at {cut} of {len(whole)}", whole[:cut]
        case 3:
            about, wrong = changed(whole, random)
            return f"gzip {about}", wrong
        case _:
            half = len(raw) // 2
            return "gzip of two members", packed(raw[:half]) + packed(raw[half:])


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(items):
        yield node, key
        yield from _places(value)


def spoil_value(tree: Any, random: Random) -> tuple[str, Any]:
    """Return a copy of a value of JSON with one entry replaced, taken out, doubled or added."""
    new = copy.deepcopy(tree)
    places = list(_places(new))
    if not places:
        return "replaced", random.choice(VALUES)
    node, key = random.choice(places)
    match random.randrange(8):
        case 0:
            del node[key]
            return f"{key} taken out", new
        case 1:
            if isinstance(node, dict):
                node[random.choice(("unknown", "", "name", str(key) + "x"))] = random.choice(VALUES)
            else:
                node.append(random.choice(VALUES))
            return f"added beside {key}", new
        case 2 if isinstance(node[key], int | float) and not isinstance(node[key], bool):
            node[key] = random.choice((*WHOLE_NUMBERS, *FLOATS))
        case 3 if isinstance(node[key], list):
            node[key] = node[key] * random.choice((2, 50))
        case _:
            node[key] = copy.deepcopy(random.choice(VALUES))
    return f"{key} = {node[key]!r}"[:80], new


def bytes_of(save: Callable[[io.BytesIO], object]) -> bytes:
    """Return what is written into a file in memory."""
    stream = io.BytesIO()
    save(stream)
    return stream.getvalue()
