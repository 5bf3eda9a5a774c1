"""A JPEG tile whose samples are all 0, for tiles of a TIFF that were never written.

libtiff takes a tile without bytes as zeros, but libvips hands JPEG tiles to libjpeg itself,
which refuses an empty one. In a picture that is one flat colour every block but the first is two bits:
"no change of the mean" and "no other frequencies".
"""

from __future__ import annotations

import struct

from special.geometry import Size, ceil_div

TABLE = 3
"""Number of its own tables: those that the other tiles share are 0 and 1, and stay as they are."""
# Means are coded as 8 × (mean - 128), here in steps of 8: mean 0 is -128, T.81 section A.3.3.
QUANTISER = struct.pack(">HHB64B", 0xFFDB, 67, TABLE, 8, *[1] * 63)
# Of means: "0" is no change, "10" a change of 8 bits. T.81 section B.2.4.2.
MEANS = struct.pack(">HHB16B2B", 0xFFC4, 21, TABLE, 1, 1, *[0] * 14, 0, 8)
# Of other frequencies: "0" ends the block.
FREQUENCIES = struct.pack(">HHB16BB", 0xFFC4, 20, 0x10 | TABLE, 1, *[0] * 15, 0)
NO_RESTARTS = struct.pack(">HHH", 0xFFDD, 4, 0)
UNCHANGED, DOWN_TO_0 = "00", "10" + "01111111" + "0"


def empty_jpeg_tile(size: Size, *, samples: int, subsampling: tuple[int, int], is_ycbcr: bool) -> bytes:
    """A baseline JPEG of `size` whose samples are 0; of YCbCr, black. Costs a few microseconds."""
    across, down = subsampling if is_ycbcr else (1, 1)
    factors = [(across, down), *[(1, 1)] * (samples - 1)]
    components = b"".join(
        struct.pack(">BBB", number, h << 4 | v, TABLE) for number, (h, v) in enumerate(factors, start=1)
    )
    frame = struct.pack(">HHBHHB", 0xFFC0, 8 + len(components), 8, size.height, size.width, samples) + components
    selectors = b"".join(struct.pack(">BB", number, TABLE << 4 | TABLE) for number in range(1, samples + 1))
    scan = struct.pack(">HHB", 0xFFDA, 6 + len(selectors), samples) + selectors + bytes((0, 63, 0))
    # Differences of colour are 0 in the middle of their range, where the decoder starts.
    first = "".join(
        (UNCHANGED if is_ycbcr and number else DOWN_TO_0) + UNCHANGED * (h * v - 1)
        for number, (h, v) in enumerate(factors)
    )
    units = ceil_div(size.width, 8 * across) * ceil_div(size.height, 8 * down)
    zeros = (units - 1) * sum(h * v for h, v in factors) * len(UNCHANGED)
    return b"".join(
        (b"\xff\xd8", QUANTISER, MEANS, FREQUENCIES, NO_RESTARTS, frame, scan, _packed(first, zeros), b"\xff\xd9")
    )


def _packed(first: str, zeros: int) -> bytes:
    """Bits and then zero bits as bytes, the last one filled up with ones (T.81 section F.1.2.3)."""
    start = (first + "0" * min(zeros, -len(first) % 8)).ljust(ceil_div(len(first), 8) * 8, "1")
    rest = max(0, zeros - -len(first) % 8)
    data = int(start, 2).to_bytes(len(start) // 8) + bytes(rest // 8)
    return data + bytes((0xFF >> rest % 8,)) if rest % 8 else data
