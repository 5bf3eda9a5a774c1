"""Which route answers a request, and the routes."""

from special.serving import info, manifests
from special.serving.answers import PIXELS_VERSION, Answer, AnswerHead, InfoDocument, PlannedRequest, Route
from special.serving.catalog import Catalog, govern
from special.serving.derivative import DerivativeRoute
from special.serving.engine import Engine, Resources
from special.serving.info import granted, listed_thumbs
from special.serving.master_pixels import MasterRenderer
from special.serving.prefetch import Prefetcher
from special.serving.published_tiles import PublishedTiles
from special.serving.pyramid_builder import PyramidBuilder
from special.serving.pyramid_maker import LANE as PYRAMID_LANE
from special.serving.pyramid_maker import PyramidMaker, Tiles, is_flat
from special.serving.pyramid_publisher import PyramidPublisher
from special.serving.pyramid_tiles import PyramidTiles
from special.serving.read_piece import ReadLimits, read_piece
from special.serving.routing import LaneName, Thumb, lane_of
from special.serving.stream import StreamRoute
from special.serving.thumb import ThumbRoute
from special.serving.tile import TileRoute

__all__ = [
    "PIXELS_VERSION",
    "PYRAMID_LANE",
    "Answer",
    "AnswerHead",
    "Catalog",
    "DerivativeRoute",
    "Engine",
    "InfoDocument",
    "LaneName",
    "MasterRenderer",
    "PlannedRequest",
    "Prefetcher",
    "PublishedTiles",
    "PyramidBuilder",
    "PyramidMaker",
    "PyramidPublisher",
    "PyramidTiles",
    "ReadLimits",
    "Resources",
    "Route",
    "StreamRoute",
    "Thumb",
    "ThumbRoute",
    "TileRoute",
    "Tiles",
    "govern",
    "granted",
    "info",
    "is_flat",
    "lane_of",
    "listed_thumbs",
    "manifests",
    "read_piece",
]
