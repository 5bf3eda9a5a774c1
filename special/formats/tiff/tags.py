"""The tags and codes of TIFF that say how pixels are stored.

A rebuilt TIFF repeats `COPIED` word for word, so the decoder reads its tiles exactly as it
would have read the master's. Source: TIFF 6.0; TIFF Technical Notes 1 and 2; the BigTIFF
proposal; the registry at the Library of Congress for the rest.
"""

from __future__ import annotations

from enum import IntEnum


class Tag(IntEnum):
    """Fields that are read. Everything else in a directory is passed by."""

    NEW_SUBFILE_TYPE = 254
    IMAGE_WIDTH = 256
    IMAGE_LENGTH = 257
    BITS_PER_SAMPLE = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES_PER_PIXEL = 277
    ROWS_PER_STRIP = 278
    STRIP_BYTE_COUNTS = 279
    X_RESOLUTION = 282
    Y_RESOLUTION = 283
    PLANAR_CONFIGURATION = 284
    T4_OPTIONS = 292
    T6_OPTIONS = 293
    RESOLUTION_UNIT = 296
    PAGE_NUMBER = 297
    PREDICTOR = 317
    COLOR_MAP = 320
    TILE_WIDTH = 322
    TILE_LENGTH = 323
    TILE_OFFSETS = 324
    TILE_BYTE_COUNTS = 325
    SUB_IFDS = 330
    INK_SET = 332
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    S_MIN_SAMPLE_VALUE = 340
    S_MAX_SAMPLE_VALUE = 341
    JPEG_TABLES = 347
    JPEG_PROC = 512
    JPEG_INTERCHANGE_FORMAT = 513
    JPEG_INTERCHANGE_FORMAT_LENGTH = 514
    YCBCR_COEFFICIENTS = 529
    YCBCR_SUB_SAMPLING = 530
    YCBCR_POSITIONING = 531
    REFERENCE_BLACK_WHITE = 532
    ICC_PROFILE = 34675
    LERC_PARAMETERS = 50674


class Type(IntEnum):
    """Field types, TIFF 6.0 section 2 and BigTIFF."""

    BYTE = 1
    ASCII = 2
    SHORT = 3
    LONG = 4
    RATIONAL = 5
    SBYTE = 6
    UNDEFINED = 7
    SSHORT = 8
    SLONG = 9
    SRATIONAL = 10
    FLOAT = 11
    DOUBLE = 12
    IFD = 13
    LONG8 = 16
    SLONG8 = 17
    IFD8 = 18


WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of one value of each type."""

NUMBERS = {1: "B", 3: "H", 4: "I", 6: "B", 8: "H", 9: "I", 13: "I", 16: "Q", 17: "Q", 18: "Q"}
"""The `struct` codes of the types that a count, a size or an offset may have: signed ones too, of which none is < 0."""

REALS = {3: "H", 4: "I", 11: "f", 12: "d"}
"""The `struct` codes of the types that the value of a sample may have."""

COPIED = frozenset(
    {
        Tag.BITS_PER_SAMPLE,
        Tag.COMPRESSION,
        Tag.PHOTOMETRIC,
        Tag.FILL_ORDER,
        Tag.SAMPLES_PER_PIXEL,
        Tag.PLANAR_CONFIGURATION,
        Tag.T4_OPTIONS,
        Tag.T6_OPTIONS,
        Tag.PREDICTOR,
        Tag.COLOR_MAP,
        Tag.INK_SET,
        Tag.EXTRA_SAMPLES,
        Tag.SAMPLE_FORMAT,
        Tag.S_MIN_SAMPLE_VALUE,
        Tag.S_MAX_SAMPLE_VALUE,
        Tag.JPEG_TABLES,
        Tag.YCBCR_COEFFICIENTS,
        Tag.YCBCR_SUB_SAMPLING,
        Tag.YCBCR_POSITIONING,
        Tag.REFERENCE_BLACK_WHITE,
        Tag.LERC_PARAMETERS,
    }
)
"""Fields that mean the same for some of the tiles as for all of them."""


class Compression(IntEnum):
    """Compressions that are undone here."""

    NONE = 1
    CCITT_RLE = 2
    CCITT_T4 = 3
    CCITT_T6 = 4
    LZW = 5
    JPEG = 7
    DEFLATE = 8
    ADOBE_DEFLATE = 32946
    PACKBITS = 32773
    LERC = 34887
    LZMA = 34925
    APERIO_JPEG_2000_YCBCR = 33003
    JPEG_2000_LOSSY = 33004
    APERIO_JPEG_2000_RGB = 33005
    JPEG_2000 = 34712
    ZSTANDARD = 50000
    WEBP = 50001
    JPEG_XL = 50002
    JPEG_XL_DNG = 52546


COMPRESSIONS = {int(compression): compression for compression in Compression}
"""By code. A look-up here takes a quarter of the time of `Compression(code)`, which every piece would pay."""

JPEG_2000 = frozenset(
    {
        Compression.APERIO_JPEG_2000_YCBCR,
        Compression.JPEG_2000_LOSSY,
        Compression.APERIO_JPEG_2000_RGB,
        Compression.JPEG_2000,
    }
)
"""Compressions whose tiles are codestreams."""

BYTES = frozenset(
    {
        Compression.NONE,
        Compression.LZW,
        Compression.DEFLATE,
        Compression.ADOBE_DEFLATE,
        Compression.PACKBITS,
        Compression.LZMA,
        Compression.ZSTANDARD,
    }
)
"""Compressions that give back the bytes of samples, whatever those mean."""

PREDICTED = BYTES - {Compression.NONE, Compression.PACKBITS}
"""Compressions of differences between samples, where Predictor says so; of others libtiff passes it over."""

CCITT = frozenset({Compression.CCITT_RLE, Compression.CCITT_T4, Compression.CCITT_T6})

IMAGECODECS = frozenset({Compression.LERC, Compression.JPEG_XL, Compression.JPEG_XL_DNG})
"""Compressions that are undone by the package imagecodecs alone, an extra."""

BEYOND_LIBVIPS = IMAGECODECS | {Compression.LZMA, Compression.ZSTANDARD}
"""Compressions that the libtiff inside libvips' wheel does not undo."""

OLD_JPEG = 6
"""JPEG as TIFF 6.0 section 22 had it: one stream of its own, which is read, or parts of one, which are not."""

REFUSED_COMPRESSIONS = {
    OLD_JPEG: "old-style JPEG",
    9: "JBIG (T.85)",
    10: "JBIG (T.43)",
    32766: "NeXT 2-bit RLE",
    32771: "CCITT RLE aligned to words",
    32809: "ThunderScan",
    34661: "JBIG",
    34676: "SGI LogLuv",
    34677: "SGI LogLuv 24",
    34892: "lossy JPEG of DNG",
}
"""Compressions with a name that nothing here undoes: libvips would give black for some of them, in silence."""


class Photometric(IntEnum):
    """What the samples mean, of what is shown here."""

    MIN_IS_WHITE = 0
    MIN_IS_BLACK = 1
    RGB = 2
    PALETTE = 3
    SEPARATED = 5
    YCBCR = 6
    CIELAB = 8
    ICCLAB = 9


PHOTOMETRICS = {int(photometric): photometric for photometric in Photometric}
"""By code."""

COLOUR_SAMPLES = {
    Photometric.MIN_IS_WHITE: 1,
    Photometric.MIN_IS_BLACK: 1,
    Photometric.RGB: 3,
    Photometric.PALETTE: 1,
    Photometric.SEPARATED: 4,
    Photometric.YCBCR: 3,
    Photometric.CIELAB: 3,
    Photometric.ICCLAB: 3,
}
"""Samples of a pixel that are colours; all others are extra ones."""

LAB = frozenset({Photometric.CIELAB, Photometric.ICCLAB})


class SampleFormat(IntEnum):
    """How a sample's bits are read, TIFF 6.0 section 19. 4, "undefined", counts as unsigned, as the section allows."""

    UNSIGNED = 1
    SIGNED = 2
    FLOAT = 3


JOINABLE = {Photometric.MIN_IS_BLACK: 1, Photometric.RGB: 3, Photometric.SEPARATED: 4}
"""Colour models, and how many samples they have, of pages whose tiles are decoded one by one and then joined."""

REFUSED_PHOTOMETRICS = {
    4: "a transparency mask",
    10: "ITU L*a*b*",
    32803: "a colour filter array (camera raw)",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw (DNG)",
}
"""Colour models with a name that nothing here shows."""
