"""OpenJPEG's C interface: where the library is found, and one decoder of it as an object.

pip brings the library along, inside pillow's wheel, but no Python interface that can decode a
region. So it is called through ctypes: no compiler, no system package, and the interpreter's
lock is released while it works.

Structures and signatures follow `openjpeg.h` of OpenJPEG 2.5; earlier ones have no strict mode.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Sequence
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint16, c_uint32, c_uint64, c_void_p
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from special.errors import ConfigurationError, Malformed

OLDEST = (2, 5)
SYSTEM_NAMES = ("libopenjp2.so.7", "libopenjp2.7.dylib", "openjp2.dll")
CHUNK_BYTES = 1 << 20  # how much OpenJPEG asks for at a time: each time takes the interpreter's lock
PARAMETERS_BYTES = 1 << 14  # opj_dparameters_t is two paths of 4096 bytes and a few numbers
MAX_MESSAGES = 3  # a file that is broken throughout complains once for each code-block

CODESTREAM, JP2 = 0, 2  # OPJ_CODEC_FORMAT
UNKNOWN, UNSPECIFIED, SRGB, GREY, SYCC, EYCC, CMYK = range(-1, 6)  # OPJ_COLOR_SPACE


class Component(ctypes.Structure):
    """`opj_image_comp_t`: one plane of samples, on a grid `dx` by `dy` times as coarse as the image's."""

    _fields_ = (
        ("dx", c_uint32),
        ("dy", c_uint32),
        ("w", c_uint32),
        ("h", c_uint32),
        ("x0", c_uint32),
        ("y0", c_uint32),
        ("prec", c_uint32),
        ("bpp", c_uint32),
        ("sgnd", c_uint32),
        ("resno_decoded", c_uint32),
        ("factor", c_uint32),
        ("data", c_void_p),
        ("alpha", c_uint16),
    )

    @property
    def samples(self) -> npt.NDArray[np.int32]:
        """The samples, (h, w): OpenJPEG's own memory, not a copy; gone when its decoder is left."""
        return np.asarray(_Memory(self.data, (self.h, self.w)))


class OpjImage(ctypes.Structure):
    """`opj_image_t`: the image's area on the reference grid, and its components."""

    _fields_ = (
        ("x0", c_uint32),
        ("y0", c_uint32),
        ("x1", c_uint32),
        ("y1", c_uint32),
        ("numcomps", c_uint32),
        ("color_space", c_int),
        ("comps", POINTER(Component)),
        ("icc_profile_buf", c_void_p),
        ("icc_profile_len", c_uint32),
    )


class _Memory:
    """Foreign memory as numpy takes it. (ctypes arrays would leave a type behind for each length.)"""

    def __init__(self, address: int, shape: tuple[int, int]) -> None:
        self.__array_interface__ = {
            "version": 3,
            "typestr": np.dtype(np.int32).str,
            "shape": shape,
            "data": (address, True),
        }


_Read = ctypes.CFUNCTYPE(c_size_t, c_void_p, c_size_t, c_void_p)
_Skip = ctypes.CFUNCTYPE(c_int64, c_int64, c_void_p)
_Seek = ctypes.CFUNCTYPE(c_int, c_int64, c_void_p)
_Message = ctypes.CFUNCTYPE(None, c_char_p, c_void_p)
_ImagePointer = POINTER(OpjImage)

SIGNATURES = {
    "opj_version": (c_char_p, ()),
    "opj_create_decompress": (c_void_p, (c_int,)),
    "opj_destroy_codec": (None, (c_void_p,)),
    "opj_set_error_handler": (c_int, (c_void_p, _Message, c_void_p)),
    "opj_set_default_decoder_parameters": (None, (c_void_p,)),
    "opj_setup_decoder": (c_int, (c_void_p, c_void_p)),
    "opj_decoder_set_strict_mode": (c_int, (c_void_p, c_int)),
    "opj_codec_set_threads": (c_int, (c_void_p, c_int)),
    "opj_stream_create": (c_void_p, (c_size_t, c_int)),
    "opj_stream_destroy": (None, (c_void_p,)),
    "opj_stream_set_read_function": (None, (c_void_p, _Read)),
    "opj_stream_set_skip_function": (None, (c_void_p, _Skip)),
    "opj_stream_set_seek_function": (None, (c_void_p, _Seek)),
    "opj_stream_set_user_data": (None, (c_void_p, c_void_p, c_void_p)),
    "opj_stream_set_user_data_length": (None, (c_void_p, c_uint64)),
    "opj_read_header": (c_int, (c_void_p, c_void_p, POINTER(_ImagePointer))),
    "opj_set_decoded_resolution_factor": (c_int, (c_void_p, c_uint32)),
    "opj_set_decode_area": (c_int, (c_void_p, _ImagePointer, c_int32, c_int32, c_int32, c_int32)),
    "opj_decode": (c_int, (c_void_p, c_void_p, _ImagePointer)),
    "opj_image_destroy": (None, (_ImagePointer,)),
}


def library_names() -> list[str]:
    """Where the library may be, the one that pip installed first."""
    pillow = importlib.util.find_spec("PIL")
    if pillow is None or pillow.origin is None:
        return list(SYSTEM_NAMES)
    package = Path(pillow.origin).parent
    wheel = [
        *package.parent.glob("pillow.libs/*openjp2*"),  # Linux
        *package.glob(".dylibs/*openjp2*"),  # macOS
    ]
    return [*(str(path) for path in sorted(wheel)), *SYSTEM_NAMES]


def load(path: str) -> ctypes.CDLL:
    """The library at a path or of a name, every function typed.

    Raises `OSError` if it cannot be loaded, and `AttributeError` if it lacks a function.
    """
    library = ctypes.CDLL(path)
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def version_of(library: ctypes.CDLL) -> str:
    """What the library calls itself, such as `2.5.4`."""
    return str(library.opj_version().decode("ascii"))


@functools.cache
def find() -> ctypes.CDLL:
    """The library in use, searched for once. Raises what `first_usable` raises."""
    return first_usable(library_names())


def first_usable(paths: Sequence[str]) -> ctypes.CDLL:
    """The first library of these that is there and new enough.

    Raises `ConfigurationError`, with what was tried and what to install.
    """
    tried: list[str] = []
    for path in paths:
        try:
            library = load(path)
        except (OSError, AttributeError) as error:
            tried.append(f"{path} ({error})")
            continue
        version = version_of(library)
        if tuple(int(part) for part in version.split(".")[:2]) >= OLDEST:
            return library
        tried.append(f"{path} (version {version} is older than {OLDEST[0]}.{OLDEST[1]})")
    raise ConfigurationError(
        "JPEG 2000 needs OpenJPEG 2.5: run `pip install --force-reinstall --only-binary pillow pillow`, "
        f"or install libopenjp2 by the system's package manager; tried {', '.join(tried)}"
    )


class _Feed:
    """Bytes as OpenJPEG wants to read them. Without a reference to the decoder: no cycle keeps the bytes alive."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.address = ctypes.cast(c_char_p(data), c_void_p).value or 0
        self.position = 0

    def read(self, target: int, wanted: int, _: int | None) -> int:
        count = min(wanted, len(self.data) - self.position)
        if count <= 0:
            return c_size_t(-1).value
        ctypes.memmove(target, self.address + self.position, count)
        self.position += count
        return count

    def skip(self, count: int, _: int | None) -> int:
        before, self.position = self.position, min(self.position + count, len(self.data))
        return self.position - before if self.position > before else -1

    def seek(self, position: int, _: int | None) -> int:
        if not 0 <= position <= len(self.data):
            return 0
        self.position = position
        return 1


class Decoder:
    """One file opened by OpenJPEG in strict mode; what it allocated is freed at the end of the `with` block.

    Use: `with Decoder(…) as decoder:`, then `read_header`, `reduce` and `area` if wanted, `decode`.
    Every step raises `Malformed` with OpenJPEG's own words. Not for two threads at once.
    """

    def __init__(self, data: bytes, *, boxed: bool, threads: int = 1) -> None:
        self._library = find()
        self._messages: list[str] = []
        self._image = _ImagePointer()
        feed, messages = _Feed(data), self._messages

        def record_message(text: bytes, _: int | None) -> None:
            if len(messages) < MAX_MESSAGES:
                messages.append(text.decode("latin-1").strip())

        # ctypes frees a callback with its last reference: they must outlive the codec and the stream
        self._callbacks = (_Message(record_message), _Read(feed.read), _Skip(feed.skip), _Seek(feed.seek))
        on_error, read, skip, seek = self._callbacks
        library = self._library
        self._stream = library.opj_stream_create(CHUNK_BYTES, True)
        library.opj_stream_set_read_function(self._stream, read)
        library.opj_stream_set_skip_function(self._stream, skip)
        library.opj_stream_set_seek_function(self._stream, seek)
        library.opj_stream_set_user_data(self._stream, None, None)
        library.opj_stream_set_user_data_length(self._stream, len(data))
        self._codec = library.opj_create_decompress(JP2 if boxed else CODESTREAM)
        library.opj_set_error_handler(self._codec, on_error, None)
        parameters = ctypes.create_string_buffer(PARAMETERS_BYTES)
        library.opj_set_default_decoder_parameters(parameters)
        library.opj_setup_decoder(self._codec, parameters)
        library.opj_decoder_set_strict_mode(self._codec, True)
        if threads > 1:
            library.opj_codec_set_threads(self._codec, threads)

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._image:
            self._library.opj_image_destroy(self._image)
        self._library.opj_destroy_codec(self._codec)
        self._library.opj_stream_destroy(self._stream)

    def read_header(self) -> OpjImage:
        """The image's area and its components; no samples yet."""
        self._check(self._library.opj_read_header(self._stream, self._codec, ctypes.byref(self._image)))
        return self._image.contents

    def reduce(self, levels: int) -> None:
        """Discard the highest resolution levels: halve the picture that number of times."""
        self._check(self._library.opj_set_decoded_resolution_factor(self._codec, levels))

    def area(self, x0: int, y0: int, x1: int, y1: int) -> None:
        """Decode only this part, in the coordinates of the reference grid."""
        self._check(self._library.opj_set_decode_area(self._codec, self._image, x0, y0, x1, y1))

    def decode(self) -> OpjImage:
        """The image with its samples, palette applied and channels in the order of their definitions."""
        self._check(self._library.opj_decode(self._codec, self._stream, self._image))
        return self._image.contents

    def _check(self, succeeded: int) -> None:
        if not succeeded:
            raise Malformed(f"OpenJPEG refuses the file: {'; '.join(self._messages) or 'it does not say why'}")
