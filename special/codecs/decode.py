"""Pieces to pictures: which codec takes which piece, and how large a picture may be."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from special.codecs import (
    bmp,
    colour,
    deep_jpeg,
    jpeg,
    openjpeg,
    pdf,
    png_completion,
    tiff_jp2,
    tiff_jpeg,
    tiff_samples,
    tiff_unpacking,
    vips,
)
from special.codecs.raster import INTERPRETATIONS, Raster, VipsImage, to_vips
from special.errors import Malformed, TooExpensive
from special.formats import Piece, first_frame
from special.formats.tiff import BYTES, JPEG_2000, Page, read_page
from special.geometry import Box, Size

MIDDLE: Final = 128
"""Grey, where a file has nothing."""
_SOC_SIZ: Final = b"\xff\x4f\xff\x51"  # T.800 A.5.1: SIZ follows SOC at once


def decode(piece: Piece, *, max_pixels: int, threads: int = 1) -> Raster | VipsImage:
    """The picture that `piece.crop` is counted in.

    A raster where the pixels are in memory as 8-bit sRGB or grey without alpha; else an image whose
    pixels libvips decodes as they are asked for, from top to bottom, once. A JPEG shrunk by
    `piece.reduce` is ceil(side / 2**reduce) long. Only JPEG 2000 is decoded by several threads.

    Raises `TooExpensive` for a picture of more than `max_pixels`, as its header says, before any is
    decoded; `Malformed` and `Unsupported` for what no codec takes. What libvips finds only while
    decoding it raises later: use its images inside `vips.reading`.
    """
    picture = _decoded(piece, max_pixels, threads)
    return _with_grey(picture, piece.missing) if piece.missing else picture


def _decoded(piece: Piece, max_pixels: int, threads: int) -> Raster | VipsImage:
    match piece.format:
        case "jp2":
            check_size(_codestream_size(piece), max_pixels)
            return _from_planes(openjpeg.decode(piece.data, reduce=piece.reduce, area=piece.area, threads=threads))
        case "jpeg":
            return _decode_jpeg(piece, max_pixels)
        case "tiff":
            page = read_page(piece.data)
            check_size(page.size, max_pixels)
            picture = _decode_tiles(piece.data, page)
            if picture is None:
                picture = tiff_samples.load(piece.data, page)
            return picture if isinstance(picture, np.ndarray) else tiff_samples.shown(picture, page)
        case "bmp":
            picture = bmp.opened(piece.data)
            check_size(Size(*picture.size), max_pixels)
            return bmp.decode(picture)
        case "pdf":
            assert piece.sheet, "a layout says which page"
            assert piece.area, "and which part of it"
            check_size(piece.area.size.reduced(piece.reduce), max_pixels)
            return pdf.decode(piece.data, piece.sheet, area=piece.area, reduce=piece.reduce)
        case "png" if piece.incomplete:
            whole = png_completion.completed(piece.data, max_pixels=max_pixels)
            return vips.load(whole, "png").copy_memory()  # libvips does not keep the bytes of `whole` alive
    image = vips.load(piece.data, piece.format, is_whole=not piece.incomplete)
    check_size(Size(image.width, image.height), max_pixels)
    if piece.format != "gif":
        return image
    if piece.incomplete and image.hasalpha():  # libvips makes see-through what is missing
        image = image.flatten(background=MIDDLE)
    return _on_screen(image, first_frame(piece.data))


def _on_screen(image: VipsImage, frame: Box) -> VipsImage:
    """A GIF's logical screen, see-through where its first frame does not cover it, as in browsers."""
    screen = Size(image.width, image.height)
    if image.hasalpha() or frame.within(screen) == Box.whole(screen):
        return image
    opacity = image.new_from_image(0).draw_rect(255, frame.x, frame.y, frame.width, frame.height, fill=True)
    return image.bandjoin(opacity)


def _decode_tiles(data: bytes, page: Page) -> Raster | VipsImage | None:
    """What is decoded tile by tile; None for what libvips can read, or reads sooner."""
    if page.compression in JPEG_2000:
        return tiff_jp2.decode(data, page)
    is_sparse = not page.tiled and page.compression in BYTES and not all(page.counts.known())
    if page.is_unpacked or is_sparse:  # libvips refuses strips that were never written
        return tiff_unpacking.decode(data, page)
    if tiff_jpeg.is_ordinary(page):
        raster = tiff_jpeg.decode(data, page)
        return None if raster is None else colour.tagged(raster, page.profile)
    return None


def _with_grey(picture: Raster | VipsImage, missing: Sequence[Box]) -> Raster | VipsImage:
    """The picture with parts of it grey, and opaque. Of a raster one copy; an image is decoded at once."""
    if isinstance(picture, np.ndarray):
        picture = picture.copy()
        for box in missing:
            picture[box.y : box.bottom, box.x : box.right] = MIDDLE
        return picture
    lightest = 65535 if picture.format == "ushort" else 255
    colours = picture.bands - picture.hasalpha()
    grey = [lightest * MIDDLE // 255] * colours + [lightest] * (picture.bands - colours)
    for box in missing:
        picture = picture.insert(picture.new_from_image(grey).crop(0, 0, box.width, box.height), box.x, box.y)
    return picture.copy_memory()


def _decode_jpeg(piece: Piece, max_pixels: int) -> Raster | VipsImage:
    if piece.incomplete:  # libjpeg makes grey of what is missing
        piece = replace(piece, data=piece.data + jpeg.EOI)
    head = jpeg.read_head(piece.data)
    if head is None or not head.is_one_scan:
        jpeg.check_scans(piece.data)
    if head is not None:
        size = head.size.reduced(piece.reduce)
        check_size(size, max_pixels)
        if head.is_deep:
            return deep_jpeg.decode(piece.data, head)
        raster = jpeg.decode(piece.data, head, reduce=piece.reduce, is_whole=not piece.incomplete)
        if raster is not None:
            return colour.tagged(raster, head.profile)
    image = vips.load(piece.data, "jpeg", reduce=piece.reduce, is_whole=not piece.incomplete)
    if piece.incomplete:
        image = image.copy_memory()  # libvips does not keep the bytes of a copy alive
    check_size(Size(image.width, image.height), max_pixels)
    if head is None:
        return image
    # libvips drops a last row or column that shrinking fills in part only; the one before is repeated.
    return image.embed(0, 0, size.width, size.height, extend="copy")


def check_size(size: Size, max_pixels: int) -> None:
    """Raise `TooExpensive` for a picture of more pixels than are to be decoded."""
    if size.area > max_pixels:
        raise TooExpensive(f"{size.width}×{size.height} pixels to decode; max_master_pixels allows {max_pixels}")


def _codestream_size(piece: Piece) -> Size:
    at = piece.data.find(_SOC_SIZ)
    try:
        if at < 0:
            raise ValueError("no SIZ marker segment follows an SOC marker")
        # T.800 table A.9: after the markers, Lsiz and Rsiz come Xsiz, Ysiz, XOsiz and YOsiz.
        right, bottom, left, top = struct.unpack_from(">4I", piece.data, at + 8)
        size = piece.area.size if piece.area else Size(right - left, bottom - top)
    except (struct.error, ValueError) as error:
        raise Malformed(f"a JPEG 2000 codestream without a usable SIZ: {error}") from error
    return size.reduced(piece.reduce)


def _from_planes(decoded: openjpeg.Planes) -> Raster | VipsImage:
    pixels = decoded.pixels
    if pixels.dtype == np.uint8 and decoded.colour != "cmyk" and not decoded.alpha:
        return colour.tagged(pixels.astype(np.uint8, copy=False), decoded.icc)
    image = to_vips(pixels).copy(interpretation=INTERPRETATIONS[decoded.colour, pixels.itemsize])
    if decoded.premultiplied:
        image = image.unpremultiply().cast(image.format)
    return colour.with_profile(image, decoded.icc) if decoded.icc else image
