"""Pixels: the only package that imports pyvips, OpenJPEG, libjpeg-turbo and pillow."""

from special.codecs import memory_estimate
from special.codecs.jpeg import subsampling
from special.codecs.pyramid_cutter import FlatPicture, cut_pyramid
from special.codecs.render import Encoding, Rendered, prepare, render, render_all
from special.codecs.tile_cutter import CutTiles, TileCut, cut_tiles

__all__ = [
    "CutTiles",
    "Encoding",
    "FlatPicture",
    "Rendered",
    "TileCut",
    "cut_pyramid",
    "cut_tiles",
    "memory_estimate",
    "prepare",
    "render",
    "render_all",
    "subsampling",
]
