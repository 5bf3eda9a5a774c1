"""libvips: every format but JPEG 2000, streamed, and its errors as this project's.

libvips has loaders for formats that are not needed, some of them programs in themselves (SVG,
MATLAB, CSV). `prepare` shuts all of them and opens the six that masters need; it belongs at the
start of a decoder process, since the setting is the whole process's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

import pyvips
from pyvips import voperation

from special.codecs.raster import VipsImage
from special.errors import ConfigurationError, Malformed, MasterError, Unsupported

VipsFormat = Literal["tiff", "jpeg", "png", "webp", "gif", "avif"]

LOADERS: Final[dict[VipsFormat, str]] = {
    "tiff": "VipsForeignLoadTiff",
    "jpeg": "VipsForeignLoadJpeg",
    "png": "VipsForeignLoadPng",
    "webp": "VipsForeignLoadWebp",
    "gif": "VipsForeignLoadNsgif",
    "avif": "VipsForeignLoadHeif",
}
_NICKNAMES: Final[dict[VipsFormat, str]] = {"avif": "heif"}
"""What libvips calls formats in the names of its operations, where that is something else."""
_BLOCKED_FLAG: Final = 32  # VIPS_OPERATION_BLOCKED in vips/operation.h
_REFUSALS: Final = ("not supported", "unsupported", "is blocked", "not found", "not implemented", "unimplemented")


def prepare() -> None:
    """Make this process a decoder: loaders by allow-list, one thread, no operation cache.

    Raises `ConfigurationError` if this libvips lacks one of the loaders, or would run any other.
    """
    voperation.cache_set_max(0)
    voperation.concurrency_set(1)
    logging.getLogger("pyvips").setLevel(logging.CRITICAL)  # what libvips says of a bad file reaches us as an error
    voperation.operation_block_set("VipsForeignLoad", True)
    for name in LOADERS.values():
        voperation.operation_block_set(name, False)
    wanted = {f"{_NICKNAMES.get(kind, kind)}load{feed}" for kind in LOADERS for feed in ("", "_buffer", "_source")}
    if open_loaders() != wanted:
        odd = ", ".join(sorted(open_loaders() ^ wanted))
        raise ConfigurationError(
            f"this libvips differs in its loaders ({odd}); pip install --force-reinstall 'pyvips[binary]'"
        )


def open_loaders() -> frozenset[str]:
    """Names of the load operations that this process may run, such as `pngload_source`."""
    names: set[str] = set()

    def visit(kind: int, *_: object) -> object:
        name = pyvips.nickname_find(kind)
        # Abstract classes are called `load` and `…load_base`, and cannot be run.
        if name != "load" and not name.endswith("_base") and not pyvips.Introspect.get(name).flags & _BLOCKED_FLAG:
            names.add(name)
        pyvips.type_map(kind, visit)
        return pyvips.ffi.NULL

    visit(pyvips.type_from_name("VipsForeignLoad"))
    return frozenset(names)


@contextmanager
def reading(kind: str) -> Iterator[None]:
    """What libvips says of a bad file becomes `Malformed` or `Unsupported`, with its words for the log."""
    try:
        yield
    except pyvips.Error as error:
        raise _told(kind, str(error)) from error
    except UnicodeDecodeError as error:
        # It quotes the file, and pyvips fails on that before it empties the list of errors: all later ones would be it.
        pyvips.vips_lib.vips_error_clear()
        raise _told(kind, error.object.decode("utf-8", "replace")) from error


def _told(kind: str, message: str) -> MasterError:
    words = " ".join(message.split())
    refused = any(phrase in words.lower() for phrase in _REFUSALS)
    return (Unsupported if refused else Malformed)(f"libvips on a {kind} file: {words}")


def load(data: bytes | pyvips.Source, kind: VipsFormat, *, reduce: int = 0, is_whole: bool = True) -> VipsImage:
    """Open a file, or what a source gives of one; pixels are decoded as they are asked for, from top to bottom, once.

    `reduce` shrinks a JPEG on load by 2**reduce; one that is not whole is grey where it ends. Of an animation the first
    frame is taken. The profile is in the image, orientation tags are left alone. Copies nothing; `data` must not
    change. Raises `Malformed` and `Unsupported`.
    """
    options: dict[str, object] = {"access": "sequential", "fail_on": "error" if is_whole else "none"}
    if kind == "jpeg" and reduce:
        options["shrink"] = 1 << reduce
    with reading(kind):
        source = pyvips.Source.new_from_memory(data) if isinstance(data, bytes) else data
        return pyvips.Operation.call(f"{_NICKNAMES.get(kind, kind)}load_source", source, **options)
