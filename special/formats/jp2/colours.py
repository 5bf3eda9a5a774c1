"""What the samples mean, as the colour specification boxes of a JP2 or JPX file say (T.800 I.5.3.3, T.801 M.11.7).

A file may have several, and of kinds that nothing here knows. The first usable one counts, and where none is, the
number of channels decides. A profile that does not fit the channels is passed over, as in other formats.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from special.errors import Unsupported

ENUMERATED, RESTRICTED_PROFILE, ANY_PROFILE = 1, 2, 3
"""METH: how a box gives the colour space (T.801 table M.22)."""


class ColourSpace(IntEnum):
    """EnumCS of what is shown here (T.801 table M.25)."""

    BILEVEL_WHITE_0 = 0
    YCC_FULL = 3
    CMY = 11
    CMYK = 12
    CIELAB = 14
    BILEVEL_BLACK_0 = 15
    SRGB = 16
    GREY = 17
    SYCC = 18


REFUSED = {
    1: "YCbCr(1), of a video's range",
    4: "YCbCr(3), of a video's range",
    9: "PhotoYCC",
    13: "YCCK",
    19: "CIEJab",
    20: "e-sRGB",
    21: "ROMM-RGB",
    22: "YPbPr of 1125 lines",
    23: "YPbPr of 1250 lines",
    24: "e-sYCC",
}
"""Spaces with a name that nothing here converts."""
GREYS = frozenset({ColourSpace.BILEVEL_WHITE_0, ColourSpace.BILEVEL_BLACK_0, ColourSpace.GREY})
PROFILE_CHANNELS = {b"GRAY": 1, b"RGB ": 3, b"CMYK": 4}
"""Colours of a profile's device space (ICC.1:2022, 7.2.6)."""
D50 = 0x00443530
"""The illuminant of Lab where none is given (T.801 M.11.7.4.1)."""


@dataclass(frozen=True, slots=True)
class Lab:
    """How samples, as parts of their full range, become L*, a* and b* (T.801 M.11.7.4.1)."""

    ranges: tuple[int, int, int]
    offsets: tuple[float, float, float]
    """As parts of the full range of a sample."""

    @classmethod
    def of(cls, parameters: bytes, bits: int) -> Lab:
        """From the EP field. Raises `Unsupported` for another illuminant than D50."""
        full = (1 << bits) - 1
        if len(parameters) < 28:
            return cls((100, 170, 200), (0.0, (1 << bits - 1) / full, (3 << bits - 3) / full))
        range_l, offset_l, range_a, offset_a, range_b, offset_b, illuminant = struct.unpack(">7I", parameters[:28])
        if illuminant != D50:
            raise Unsupported(f"the JPEG 2000 is in CIELab of the illuminant {illuminant:#010x}; only D50 is converted")
        return cls((range_l, range_a, range_b), (offset_l / full, offset_a / full, offset_b / full))


@dataclass(frozen=True, slots=True)
class Colours:
    """A colour specification; nothing in it where the number of channels decides."""

    space: ColourSpace | None = None
    profile: bytes | None = None
    lab: Lab | None = None

    @property
    def is_grey(self) -> bool:
        return self.space in GREYS or (self.profile is not None and self.profile[16:20] == b"GRAY")


def colours(boxes: Sequence[bytes], *, channels: int, extra: int | None, bits: int) -> Colours:
    """The specification to use, of the contents of all boxes.

    `channels` are those of a pixel; `extra` those that the file says are no colours, None where it says nothing.
    Raises `Unsupported` where all that is named is unknown here.
    """
    refused: list[str] = []
    # PREC, a signed byte: the higher one first (T.801 M.11.7.2)
    for body in sorted(boxes, key=lambda body: -int.from_bytes(body[1:2], signed=True)):
        if body[:1] == bytes((ENUMERATED,)) and len(body) >= 7:
            number = int.from_bytes(body[3:7])
            if number in ColourSpace.__members__.values():
                space = ColourSpace(number)
                return Colours(space, lab=Lab.of(body[7:], bits) if space is ColourSpace.CIELAB else None)
            refused.append(f"{number}, {REFUSED.get(number, 'an unknown one')}")
        elif body[:1] in (bytes((RESTRICTED_PROFILE,)), bytes((ANY_PROFILE,))) and _fits(body[3:], channels, extra):
            return Colours(profile=body[3:])
    if refused:
        raise Unsupported(
            f"the JPEG 2000 is in colour space {refused[0]}, which is not converted here; re-encode as sRGB"
        )
    return Colours()


def _fits(profile: bytes, channels: int, extra: int | None) -> bool:
    """Whether a profile is one, and is of as many colours as there are; one channel more, if undefined, may be any."""
    count = PROFILE_CHANNELS.get(profile[16:20]) if profile[36:40] == b"acsp" else None
    return count is not None and (count == channels - extra if extra is not None else count in (channels, channels - 1))
