"""Which route answers a request, and the routes."""

from special.serving import info
from special.serving.engine import Answer, AnswerHead, Engine, PlannedRequest
from special.serving.info import granted, listed_thumbs
from special.serving.read_piece import ReadLimits, read_piece
from special.serving.routing import Thumb

__all__ = [
    "Answer",
    "AnswerHead",
    "Engine",
    "PlannedRequest",
    "ReadLimits",
    "Thumb",
    "granted",
    "info",
    "listed_thumbs",
    "read_piece",
]
