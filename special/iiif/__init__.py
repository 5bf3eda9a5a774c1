"""IIIF Image API requests, 2.1 and 3.0: parse, resolve against an image, canonicalise. Pure.

path -> ImageRequest | InfoRequest | BaseRequest     parse(): syntax alone
ImageRequest + Size -> Job                           resolve(): whole pixels, every rule applied
Job -> canonical path                                canonical()
path -> ImageManifest | FolderManifest               parse_manifest(): the Presentation API's documents
"""

from special.iiif.identifier import (
    MAX_IDENTIFIER_BYTES,
    IdentifierForm,
    Spelling,
    fold_identifier,
    parse_identifier,
    quote_identifier,
)
from special.iiif.job import Job, Limits, canonical, region_box, resolve
from special.iiif.manifest import FolderManifest, ImageManifest, parse_manifest
from special.iiif.mark import Mark
from special.iiif.request import (
    MEDIA,
    QUALITIES,
    BaseRequest,
    Full,
    ImageRequest,
    InfoRequest,
    Max,
    OutputFormat,
    Percent,
    Quality,
    Version,
    Within,
    parse,
)

__all__ = [
    "MAX_IDENTIFIER_BYTES",
    "MEDIA",
    "QUALITIES",
    "BaseRequest",
    "FolderManifest",
    "Full",
    "IdentifierForm",
    "ImageManifest",
    "ImageRequest",
    "InfoRequest",
    "Job",
    "Limits",
    "Mark",
    "Max",
    "OutputFormat",
    "Percent",
    "Quality",
    "Spelling",
    "Version",
    "Within",
    "canonical",
    "fold_identifier",
    "parse",
    "parse_identifier",
    "parse_manifest",
    "quote_identifier",
    "region_box",
    "resolve",
]
