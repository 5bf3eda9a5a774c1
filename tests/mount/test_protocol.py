"""The kernel's messages: their lengths and fields as `linux/fuse.h` has them, written down here by hand."""

from __future__ import annotations

import errno
from struct import pack, unpack_from

from special.mount import protocol
from special.mount.protocol import Attributes, Request

ATTRIBUTES = Attributes(ino=11, size=1025, mtime_ns=1_700_000_000_123_456_789, mode=0o100444, user=7, group=8)
# struct fuse_attr: ino, size, blocks, three times, their nanoseconds, mode, nlink, uid, gid, rdev, blksize, flags
KERNELS = (
    pack("=QQQ", 11, 1025, 3)
    + pack("=QQQ", *[1_700_000_000] * 3)
    + pack("=III", *[123_456_789] * 3)
    + pack("=IIIIIII", 0o100444, 1, 7, 8, 0, 65536, 0)
)


def request(opcode: int, body: bytes, *, node: int = 5, unique: int = 9) -> Request:
    header = pack("=IIQQIIII", 40 + len(body), opcode, unique, node, 1000, 1000, 77, 0)
    return Request.parse(header + body)


def test_attributes_are_the_kernels() -> None:
    assert bytes(ATTRIBUTES) == KERNELS
    assert len(KERNELS) == 88


def test_a_look_up_and_its_answers() -> None:
    asked = request(1, "ü.tif".encode() + b"\0")
    assert (asked.opcode, asked.unique, asked.node, asked.name.decode()) == (1, 9, 5, "ü.tif")
    found = protocol.entry_out(12, ATTRIBUTES, valid_s=1.5, attributes_valid_s=3)
    assert found == pack("=QQQQII", 12, 0, 1, 3, 500_000_000, 0) + KERNELS
    absent = protocol.no_entry_out(valid_s=1)
    assert len(absent) == len(found) == protocol.ENTRY_BYTES == 128
    assert unpack_from("=QQQ", absent) == (0, 0, 1)


def test_reads() -> None:
    asked = request(15, pack("=QQIIQII", 3, 4096, 131072, 0, 0, 0, 0))
    assert asked.read == (3, 4096, 131072)
    assert b"".join(protocol.answer(9, memoryview(b"abc"), b"de")) == pack("=IiQ", 21, 0, 9) + b"abcde"
    assert b"".join(protocol.refusal(9, errno.ESTALE)) == pack("=IiQ", 16, -116, 9)


def test_the_kernel_forgets() -> None:
    assert list(request(2, pack("=Q", 3)).forgotten) == [(5, 3)]
    assert list(request(42, pack("=II", 2, 0) + pack("=QQQQ", 8, 1, 9, 2)).forgotten) == [(8, 1), (9, 2)]
    told = b"".join(protocol.forget_name(5, b"name"))
    assert told == pack("=IiQ", 16 + 16 + 5, 3, 0) + pack("=QII", 5, 4, 0) + b"name\0"


def test_the_beginning() -> None:
    asked = request(26, pack("=IIII", 7, 40, 131072, 0xFFFFFFFF) + bytes(48))
    assert asked.init == (7, 40, 131072, 0xFFFFFFFF)
    said = protocol.init_out(131072, 0xFFFFFFFF)
    assert len(said) == 64
    major, minor, readahead, flags = unpack_from("=IIII", said)
    assert (major, minor, readahead) == (7, 31, 131072)
    assert flags == 1 << 0 | 1 << 13 | 1 << 14 | 1 << 18 | 1 << 22
    assert unpack_from("=H", said, 28) == (256,)
    assert protocol.init_out(0, 0)[12:16] == bytes(4), "nothing that the kernel cannot do"


def test_names_in_a_folder_are_padded_to_eight_bytes() -> None:
    for name in (b"a", b"12345678", b"x" * 255):
        record = protocol.folder_entry(name, 11, 4, 0o40555)
        assert record[: 24 + len(name)] == pack("=QQII", 11, 4, len(name), 4) + name
        assert len(record) == protocol.folder_entry_bytes(name) == (24 + len(name) + 7) // 8 * 8


def test_extended_attributes() -> None:
    assert request(22, pack("=II", 64, 0) + b"user.etag\0").xattr == (64, b"user.etag")
    assert protocol.xattr_out(b"value", 0) == pack("=II", 5, 0)
    assert protocol.xattr_out(b"value", 5) == b"value"
    assert protocol.xattr_out(b"value", 4) is None
    assert len(protocol.statfs_out()) == 80
    assert protocol.open_out(3, protocol.KEEP_CACHE) == pack("=QII", 3, 2, 0)
    assert len(protocol.attributes_out(ATTRIBUTES, valid_s=1)) == 104
