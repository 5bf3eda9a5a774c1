"""The conversation with the kernel: its requests as they come, and their answers as soon as they are known.

All in one event loop, with the volume and the source: what is in memory is answered at once, everything else is a task,
so that requests that wait for a store cost a task each and not a thread. Bytes are written as the volume has them.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count

from special.errors import Changed, Denied, Missing, SourceError
from special.mount import protocol
from special.mount.filesystem import FileSystem, OpenFile
from special.mount.nodes import Node, Nodes
from special.mount.protocol import Opcode, Request, answer, refusal
from special.storage import Blob, Span

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Requests that are taken before other work of the event loop has its turn."""
FOREVER_S = 86400.0
"""For how long the kernel believes what never changes."""
FORGET_NAME_S = 1.0
"""For how long a program that is told that its file is stale waits until the kernel has forgotten the name."""
NO_ENTRY_S = 1.0
"""For how long the kernel believes that there is no such name."""
_ENTITY_TAG, _URL = b"user.etag", b"user.url"

Message = list[bytes | memoryview]


Child = tuple[str, Blob | str]
"""A name, and what it stands for."""


class OpenFolder:
    """A folder that a program lists. Names are told in pages that the kernel asks for by their offset."""

    def __init__(self, listing: Callable[[], AsyncGenerator[Child, None]]) -> None:
        self._listing = listing
        self._lock = asyncio.Lock()
        self._rewind()

    async def page(self, offset: int, size: int, length: Callable[[str], int]) -> list[Child]:
        """As many children from an offset on as fit into `size` bytes, where a name takes `length`."""
        async with self._lock:
            try:
                if offset < self._offset:
                    await self.close()
                    self._rewind()
                page: list[Child] = []
                while (child := await self._peek()) is not None:
                    if self._offset >= offset:
                        size -= length(child[0])
                        if size < 0:
                            break
                        page.append(child)
                    self._take()
            except BaseException:
                self._rewind()  # a generator that was left by an error has ended, as if there were no more names
                raise
            return page

    async def close(self) -> None:
        await self._names.aclose()

    def _rewind(self) -> None:
        self._names = self._listing()
        self._offset = 0
        self._next: Child | None = None

    async def _peek(self) -> Child | None:
        if self._next is None:
            self._next = await anext(self._names, None)
        return self._next

    def _take(self) -> None:
        self._next = None
        self._offset += 1


class Session:
    """One mount's conversation."""

    def __init__(self, device: int, files: FileSystem, *, entry_s: float, deadline_s: float) -> None:
        """`device`: descriptor that was mounted, not blocking.

        `entry_s`: for how long a name is believed to stand for the same version. `deadline_s`: the longest wait for the
        store, after which a program gets EIO.
        """
        self._device = device
        self._files = files
        self._entry_s = entry_s
        self._deadline_s = deadline_s
        self._nodes = Nodes(user=os.getuid(), group=os.getgid())
        self._open_files: dict[int, OpenFile] = {}
        self._open_folders: dict[int, OpenFolder] = {}
        self._handles = count(1)
        self._notifier = ThreadPoolExecutor(1, "mount-notify")
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ready = asyncio.Event()
        self._at_once: dict[int, Callable[[Request], Message | None]] = {
            Opcode.INIT: self._init,
            Opcode.DESTROY: self._destroy,
            Opcode.FORGET: self._forget,
            Opcode.BATCH_FORGET: self._forget,
            Opcode.INTERRUPT: self._interrupt,
            Opcode.GETATTR: self._getattr,
            Opcode.OPEN: self._open,
            Opcode.READ: self._read_at_once,
            Opcode.RELEASE: self._release,
            Opcode.OPENDIR: self._opendir,
            Opcode.GETXATTR: self._getxattr,
            Opcode.LISTXATTR: self._listxattr,
            Opcode.STATFS: lambda request: answer(request.unique, protocol.statfs_out()),
        }
        self._later: dict[int, Callable[[Request], Awaitable[Message]]] = {
            Opcode.LOOKUP: self._lookup,
            Opcode.READ: self._read,
            Opcode.READDIR: self._readdir,
            Opcode.READDIRPLUS: self._readdir,
            Opcode.RELEASEDIR: self._releasedir,
        }

    async def ready(self) -> None:
        """Wait until the kernel has begun: names can be looked up from then on."""
        await self._ready.wait()

    async def serve(self) -> None:
        """Answer until it is unmounted and no program has a file open."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._device, self._receive)
        try:
            await self._ended
        finally:
            loop.remove_reader(self._device)
            for task in list(self._tasks.values()):
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            await asyncio.gather(*(folder.close() for folder in self._open_folders.values()))
            self._notifier.shutdown(wait=False, cancel_futures=True)

    def _receive(self) -> None:
        for _ in range(AT_ONCE):
            try:
                message = os.read(self._device, protocol.REQUEST_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno == errno.ENOENT:  # the request was taken back while it was being read
                    continue
                if not self._ended.done():
                    if error.errno == errno.ENODEV:  # unmounted
                        self._ended.set_result(None)
                    else:
                        self._ended.set_exception(error)
                return
            self._handle(Request.parse(message))

    def _handle(self, request: Request) -> None:
        try:
            if request.opcode in self._at_once:
                reply = self._at_once[request.opcode](request)
                if reply is not None:
                    self._send(reply)
                    return
            if request.opcode in self._later:
                task = asyncio.create_task(self._answer_later(request, self._later[request.opcode]))
                self._tasks[request.unique] = task
                task.add_done_callback(partial(self._ended_later, request))
            elif request.opcode not in self._at_once:
                self._send(refusal(request.unique, errno.ENOSYS))
        except OSError as error:
            self._send(refusal(request.unique, error.errno or errno.EIO))
        except Exception:
            self._send(_after_mistake(request))

    async def _answer_later(self, request: Request, work: Callable[[Request], Awaitable[Message]]) -> None:
        try:
            async with asyncio.timeout(self._deadline_s):
                reply = await work(request)
        except TimeoutError:
            log.warning("the store did not answer within %.0f s", self._deadline_s)
            reply = refusal(request.unique, errno.EIO)
        except SourceError as error:
            number, node = _errno(request, error), self._nodes.get(request.node)
            if number == errno.ESTALE and node is not None:
                await self._forget_name(node)
            reply = refusal(request.unique, number)
        except OSError as error:
            reply = refusal(request.unique, error.errno or errno.EIO)
        except Exception:
            reply = _after_mistake(request)
        self._send(reply)

    def _ended_later(self, request: Request, task: asyncio.Task[None]) -> None:
        del self._tasks[request.unique]
        if task.cancelled():  # perhaps before it began
            self._send(refusal(request.unique, errno.EINTR))

    def _send(self, message: Message) -> None:
        try:
            os.writev(self._device, message)
        except OSError as error:
            # ENOENT: the request was taken back. ENODEV: unmounted meanwhile.
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise

    async def _forget_name(self, node: Node) -> None:
        """Let the next program that names a file find its current version."""

        def tell() -> None:
            with suppress(OSError):  # the kernel has forgotten it by itself, or it was unmounted
                os.writev(self._device, protocol.forget_name(node.parent, node.name))

        # The kernel waits for all look-ups in that folder, which wait for this event loop.
        told = asyncio.get_running_loop().run_in_executor(self._notifier, tell)
        await asyncio.wait([told], timeout=FORGET_NAME_S)

    def _node(self, request: Request) -> Node:
        node = self._nodes.get(request.node)
        if node is None:
            raise OSError(errno.ESTALE, "no such inode")
        return node

    def _init(self, request: Request) -> Message:
        major, minor, readahead, flags = request.init
        if (major, minor) < (protocol.MAJOR, protocol.OLDEST_MINOR):
            raise OSError(errno.EPROTO, "the kernel is too old")
        self._ready.set()
        return answer(request.unique, protocol.init_out(readahead, flags))

    def _destroy(self, request: Request) -> Message:
        return answer(request.unique)

    def _forget(self, request: Request) -> None:
        self._nodes.forget(request.forgotten)

    def _interrupt(self, request: Request) -> None:
        task = self._tasks.get(request.handle)
        if task is not None:
            task.cancel()

    async def _lookup(self, request: Request) -> Message:
        folder, name = self._node(request), request.name
        assert isinstance(folder.place, str), "names are looked up in folders"
        try:
            place = await self._files.look_up(folder.place, name.decode())
        except (Missing, UnicodeDecodeError):
            return answer(request.unique, protocol.no_entry_out(valid_s=NO_ENTRY_S))
        return answer(request.unique, self._entry(folder, name, place))

    def _entry(self, folder: Node, name: bytes, place: Blob | str) -> bytes:
        node = self._nodes.found(folder, name, place)
        attributes = self._nodes.attributes(place)
        return protocol.entry_out(node.number, attributes, valid_s=self._entry_s, attributes_valid_s=FOREVER_S)

    def _getattr(self, request: Request) -> Message:
        attributes = self._nodes.attributes(self._node(request).place)
        return answer(request.unique, protocol.attributes_out(attributes, valid_s=FOREVER_S))

    def _open(self, request: Request) -> Message:
        node, handle = self._node(request), next(self._handles)
        assert isinstance(node.place, Blob), "the kernel opens files"
        self._open_files[handle] = self._files.open(node.place)
        return answer(request.unique, protocol.open_out(handle, protocol.KEEP_CACHE))

    def _span(self, request: Request) -> tuple[OpenFile, Span | None]:
        """The open file, and what is asked of it; None past its end."""
        handle, offset, size = request.read
        file = self._open_files[handle]
        stop = min(offset + size, file.blob.size)
        return file, Span(offset, stop) if offset < stop else None

    def _read_at_once(self, request: Request) -> Message | None:
        file, span = self._span(request)
        if span is None:
            return answer(request.unique)
        parts = self._files.peek(file, span)
        return None if parts is None else answer(request.unique, *parts)

    async def _read(self, request: Request) -> Message:
        file, span = self._span(request)
        assert span is not None, "nothing past the end is waited for"
        return answer(request.unique, *await self._files.read(file, span))

    def _release(self, request: Request) -> Message:
        del self._open_files[request.handle]
        return answer(request.unique)

    def _opendir(self, request: Request) -> Message:
        node, handle = self._node(request), next(self._handles)
        prefix = node.place
        assert isinstance(prefix, str), "the kernel lists folders"
        self._open_folders[handle] = OpenFolder(lambda: self._files.entries(prefix))
        return answer(request.unique, protocol.open_out(handle))

    async def _readdir(self, request: Request) -> Message:
        folder = self._node(request)
        handle, offset, size = request.read

        is_plus = request.opcode == Opcode.READDIRPLUS
        before = protocol.ENTRY_BYTES if is_plus else 0
        children = await self._open_folders[handle].page(
            offset, size, lambda name: before + protocol.folder_entry_bytes(name.encode())
        )
        records: list[bytes] = []
        for following, (name, place) in enumerate(children, offset + 1):
            encoded, attributes = name.encode(), self._nodes.attributes(place)
            if is_plus:
                records.append(self._entry(folder, encoded, place))
            records.append(protocol.folder_entry(encoded, attributes.ino, following, attributes.mode))
        return answer(request.unique, *records)

    async def _releasedir(self, request: Request) -> Message:
        await self._open_folders.pop(request.handle).close()
        return answer(request.unique)

    def _getxattr(self, request: Request) -> Message:
        place, (size, name) = self._node(request).place, request.xattr
        values = {_ENTITY_TAG: place.etag, _URL: place.url} if isinstance(place, Blob) else {}
        if name not in values:
            raise OSError(errno.ENODATA, "no such attribute")
        return self._xattr(request, values[name].encode(), size)

    def _listxattr(self, request: Request) -> Message:
        is_file = isinstance(self._node(request).place, Blob)
        return self._xattr(request, b"\0".join([_ENTITY_TAG, _URL, b""]) if is_file else b"", request.xattr[0])

    def _xattr(self, request: Request, value: bytes, size: int) -> Message:
        out = protocol.xattr_out(value, size)
        if out is None:
            raise OSError(errno.ERANGE, "the buffer is too small")
        return answer(request.unique, out)


def _after_mistake(request: Request) -> Message:
    """The answer after an error of ours: without one the program would wait for ever."""
    log.exception("a request of the kernel (%d) could not be answered", request.opcode)
    return refusal(request.unique, errno.EIO)


def _errno(request: Request, error: SourceError) -> int:
    """What a program is told of an error of the source."""
    match error:
        case Changed() | Missing() if request.opcode == Opcode.READ:
            return errno.ESTALE
        case Missing():
            return errno.ENOENT
        case Denied():
            return errno.EACCES
    log.warning("%s", error)
    return errno.EIO
