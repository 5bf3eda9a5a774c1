"""Asks an old server and a new one the same requests, those of an access log, and tells what differs."""

from special.compare.differences import DIFFERENCES, DifferenceKind
from special.compare.reads import Prices
from special.compare.run import Options, run

__all__ = ["DIFFERENCES", "DifferenceKind", "Options", "Prices", "run"]
