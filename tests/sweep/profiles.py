"""Two small colour profiles, written by hand (ICC.1:2001-04, version 2)."""

from __future__ import annotations

import struct
from collections.abc import Sequence


def _fixed(*numbers: float) -> bytes:
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def _xyz(*numbers: float) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(*numbers)


def _gamma(exponent: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256))


def _profile(space: bytes, tags: Sequence[tuple[bytes, bytes]]) -> bytes:
    at = 128 + 4 + 12 * len(tags)
    index, body = struct.pack(">I", len(tags)), b""
    for name, content in tags:
        index += struct.pack(">4sII", name, at + len(body), len(content))
        body += content.ljust(-(-len(content) // 4) * 4, b"\0")
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"none", 0x02400000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _fixed(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + index + body


_NAME = b"desc\0\0\0\0" + struct.pack(">I", 2) + b"p\0" + bytes(78)

ADOBE = _profile(
    b"RGB ",
    [
        (b"desc", _NAME),
        (b"wtpt", _xyz(0.9505, 1, 1.0891)),
        (b"rXYZ", _xyz(0.60974, 0.31111, 0.01947)),
        (b"gXYZ", _xyz(0.20528, 0.62567, 0.06087)),
        (b"bXYZ", _xyz(0.14919, 0.06322, 0.74457)),
        *((curve, _gamma(2.2)) for curve in (b"rTRC", b"gTRC", b"bTRC")),
    ],
)
"""RGB of a wide gamut."""
GREY_18 = _profile(b"GRAY", [(b"desc", _NAME), (b"wtpt", _xyz(0.9642, 1, 0.8249)), (b"kTRC", _gamma(1.8))])
"""Grey of gamma 1.8."""
