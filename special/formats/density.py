"""How many pixels of a master go on an inch of what was scanned. Pure."""

from __future__ import annotations

import math
import struct

INCH_M = 0.0254
DENSITIES = range(1, 100_001)
"""What makes sense: from aerial photographs of a poster's size to microscopes."""
TOLERANCE = 0.01
"""By how much two sides may differ: whole numbers for a centimetre and for an inch do."""


def per_inch(across: float, down: float, unit_inches: float) -> float | None:
    """Pixels per inch, of pixels per unit; None where the sides differ, and for what makes no sense."""
    if not (math.isfinite(across) and math.isfinite(down) and abs(across - down) <= TOLERANCE * across):
        return None
    density = across / unit_inches
    return density if DENSITIES.start <= density < DENSITIES.stop else None


def of_units(across: float, down: float, unit: int, *, inch: int) -> float | None:
    """The same where a number names the unit: `inch`, or the centimetre as the next one."""
    if unit not in (inch, inch + 1):
        return None
    return per_inch(across, down, 1.0 if unit == inch else 0.01 / INCH_M)


def of_jp2(body: bytes) -> float | None:
    """Of a resolution box of JPEG 2000 (ISO/IEC 15444-1, I.5.3.7.1), in pixels per metre; down comes first."""
    if len(body) != 10:
        return None
    down, down_by, across, across_by, down_power, across_power = struct.unpack(">HHHHbb", body)
    if not (down_by and across_by):
        return None
    return per_inch(across / across_by * 10.0**across_power, down / down_by * 10.0**down_power, 1 / INCH_M)
