"""The image routes: info.json, pixels, and the services of a login.

Viewers ask for the same addresses again and again. The plan for an address and a caller is therefore kept
in memory, and holds as long as the image is known to be the same: the second time, a tile that is in memory
costs a look-up.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Any, Final, Literal, TypeVar
from urllib.parse import parse_qs, quote

from starlette.types import Receive, Send

from special import iiif
from special.auth import ANONYMOUS, Identity, Verifier
from special.auth import MEDIA as AUTH_MEDIA
from special.catalogue import Caller
from special.concurrency import Deadline, FairStart, LRUCache
from special.errors import BadRequest, NotFound
from special.iiif import (
    BaseRequest,
    FolderManifest,
    Full,
    IdentifierForm,
    ImageManifest,
    ImageRequest,
    InfoRequest,
    Version,
)
from special.images import Asset
from special.observability import trace
from special.serving import Answer, Engine, LaneName, PlannedRequest, Thumb, info, lane_of, manifests
from special.storage import NotModified, Unless
from special.web.auth import Auth, probe
from special.web.disconnect import until_disconnect
from special.web.manifests import ManifestRoute
from special.web.negotiation import preferred
from special.web.request import HttpRequest
from special.web.response import CHUNK_BYTES, CORS, Headers, cors, send_answer, send_bytes, send_head, timing
from special.web.response_cache import Reading, ResponseCache
from special.web.unsent import UnsentAnswers

PREFIXES: Final = ("iiif", "iiif-img", "thumbs")
OPEN_TIER: Final = "auth/open/"
MAX_PLANS: Final = 10_000
"""Maximum number of plans that are kept in memory, of some 2 KB each."""

MAX_TAG: Final = 200
"""Longest tag that is not a digest: CDNs limit all tags of an answer together."""
_ATTACHMENT: Final = "response-content-disposition=attachment"
"""As S3 has it, and sites that were built on it."""
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f/\\]")

Key = tuple[str, str, str, bool, Version, Identity]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that has been planned, and the headers that all its answers have."""

    planned: PlannedRequest
    headers: Headers

    @property
    def asset(self) -> Asset:
        return self.planned.asset


@dataclass(frozen=True, slots=True)
class Document:
    """An info.json as it is sent."""

    asset: Asset
    version: Version
    profile: str
    data: bytes
    etag: str
    private: bool
    """Whether another client would get another document."""
    status: Literal[200, 302, 401]
    """401: this caller may see nothing of the image; 302: what they may see is described elsewhere."""


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How images are addressed and passed on."""

    id_segments: int
    max_age_s: int
    form: IdentifierForm
    """Which spellings of identifiers are served."""
    offload_location: str | None
    """Where a trusted proxy that offers to fetches stored renditions by itself; None: nowhere."""
    gallery: bool | None
    """Whether folders are listed; None: those on local disk."""
    cache_tag_header: str | None
    """Header with the image's tag for CDNs; None: there is none."""
    aliases: Mapping[str, str]
    """Other names of identifiers' first segment, and what it is."""
    redirect_canonical: bool
    """Whether info.json at an address that names the default version leads to the address without one."""
    unsent_bytes: int
    """Memory for answers that wait for their clients to read them."""


C = TypeVar("C", Prepared, Document)


class Images:
    """Answers the requests of one server process while its engine is open."""

    def __init__(
        self,
        options: ImageOptions,
        engine: Engine,
        *,
        verifier: Verifier,
        auth: Auth | None,
        response_cache: ResponseCache,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.engine = engine
        self._options = options
        self._verifier = verifier
        self._auth = auth
        self._response_cache = response_cache
        self._clock = clock
        self._fair_start = FairStart()
        self._unsent = UnsentAnswers(options.unsent_bytes)
        self._prepared: LRUCache[Key, Prepared] = LRUCache(MAX_PLANS)
        self._documents: LRUCache[Key, Document] = LRUCache(MAX_PLANS)
        self._manifests = ManifestRoute(engine, auth=auth, gallery=options.gallery, id_segments=options.id_segments)

    async def answer(self, call: HttpRequest, receive: Receive, send: Send) -> int:
        """Answer one request and give the status. Raises `SpecialError`, `Disconnected`, `Broken`."""
        identity = ANONYMOUS
        if self._verifier.has_token(call.headers):
            async with self._deadline(call, "stored").limit("verifying a token"):
                identity = await self._verifier.identify(call.headers)
        if self._auth:
            if call.prefix == "auth" and (opened := self._opened(self._auth, call)):
                call, identity = opened, ANONYMOUS
            elif call.prefix == "auth":
                return await self._authorise(self._auth, call, identity, send)
            elif self._auth.flow.tells_by_status and call.path.endswith("/info.json"):
                # Authentication 1.0, section 2.2.5: the token stands for the cookie here, and at no picture.
                identity = self._auth.bearer_of(call.headers, identity)
        if call.query and "page" in parse_qs(call.query, keep_blank_values=True):
            raise BadRequest("A page is named behind the identifier, as in map.tif;3, and not by 'page' in the query.")
        segments, form = self._options.id_segments, self._options.form
        if call.prefix == "iiif" and (manifest := iiif.parse_manifest(call.path, id_segments=segments, form=form)):
            return await self._manifest(call, manifest, identity, send)
        if self.engine.authorises:
            async with self._deadline(call, "stored").limit("asking who may see the image"):
                identity = await self._identified(call, self._parse(call.path).identifier, identity)
        prepared = self._current(self._prepared, call, identity)
        if prepared is None:
            if document := self._current(self._documents, call, identity):
                return await self._send_info(call, document, send)
            request = self._parse(call.path)
            if location := self._location(call, request):
                headers = [*CORS, *self._asset_id(request.identifier), (b"location", location.encode())]
                return await send_bytes(send, 303, headers, b"")
            if not isinstance(request, ImageRequest):
                return await self._send_info(call, await self._info(call, request, identity), send)
            lane: LaneName = "stored" if call.level0 else "full" if isinstance(request.region, Full) else "tile"
            async with self._deadline(call, lane).limit("looking up the image"):
                prepared = await self._prepare(call, request, identity)
        return await self._pixels(call, prepared, receive, send)

    def _parse(self, path: str) -> BaseRequest | InfoRequest | ImageRequest:
        """The request that a path asks for, of the image by its own identifier."""
        request = iiif.parse(path, id_segments=self._options.id_segments, form=self._options.form)
        first, slash, rest = request.identifier.partition("/")
        own = self._options.aliases.get(first) if slash else None
        return replace(request, identifier=f"{own}/{rest}") if own else request

    def _deadline(self, call: HttpRequest, lane: LaneName) -> Deadline:
        """Counted from the request's arrival."""
        return Deadline(call.arrived_s + self.engine.deadlines_s[lane], self._clock)

    # info.json

    def _location(self, call: HttpRequest, request: ImageRequest | InfoRequest | BaseRequest) -> str | None:
        """Where info.json is, for a request whose address is another."""
        if isinstance(request, ImageRequest):
            return None
        unversioned = self._options.redirect_canonical and request.version == call.default_version
        if isinstance(request, InfoRequest) and not unversioned:
            return None
        make = call.unversioned_uri if unversioned else call.uri
        return f"{make(request, id_segments=self._options.id_segments)}/info.json"

    async def _info(self, call: HttpRequest, request: InfoRequest | BaseRequest, identity: Identity) -> Document:
        version = call.form(request.version).version
        uri = self._uri(call, request)
        make = self.engine.thumbs_info if call.level0 else self.engine.info
        services = self._auth.flow.services(call.base, self._uri(replace(call, tier=""), request)) if self._auth else ()
        async with self._deadline(call, "stored").limit("looking up the image"):
            found = await make(request.identifier, uri, version=version, identity=identity, services=services)
        data = _json(found.document)
        private = found.asset.restricted or found.is_personal
        profile = info.profile(version, found.level)
        status: Literal[200, 302, 401] = 401 if found.access == "none" else 200
        tiered = self._auth is not None and self._auth.flow.tells_by_status and not call.level0
        if found.access == "part" and tiered and not call.tier:
            status = 302
        document = Document(found.asset, version, profile, data, _etag(data), private, status)
        self._documents.put(_key(call, identity), document)
        return document

    async def _send_info(self, call: HttpRequest, document: Document, send: Send) -> int:
        headers = [*self._cors(call), *self._caching(call, *self._vary, private=document.private, age_s=60)]
        headers += [*self._tag(document.asset), *self._asset_id(document.asset.identifier)]
        if document.status == 302:
            location = f"{call.base}/{OPEN_TIER}{call.prefix}/{call.quoted_path}".encode()
            return await send_bytes(send, 302, [*headers, (b"location", location)], b"")
        media: str = call.form(document.version).media
        context = info.CONTEXT[document.version]
        link = f'<{document.profile}>;rel="profile"'
        if media == "application/json":
            link = f'<{context}>;rel="http://www.w3.org/ns/json-ld#context";type="application/ld+json",{link}'
        elif document.version == 3:
            media += f';profile="{context}"'
        headers += [(b"content-type", media.encode()), (b"link", link.encode())]
        if document.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))  # RFC 9110, section 15.5.2
            return await send_bytes(send, 401, headers, document.data, head=call.head)
        if self._may_be_cached(document.asset):
            send = self._response_cache.recording(call, send, partial(self._current_data, document))
        return await _send_json(call, headers, document.data, document.etag, send)

    def _current_data(self, document: Document) -> bytes | None:
        return document.data if self.engine.catalog.is_current(document.asset) else None

    async def _manifest(
        self, call: HttpRequest, asked: ImageManifest | FolderManifest, identity: Identity, send: Send
    ) -> int:
        async with self._deadline(call, "full").limit("making a manifest"):
            form = preferred(call.accept, None, api="presentation")
            identify = partial(self._identified, call, identity=identity)
            contents = await self._manifests.contents(call, asked, identify)
            data = _json(await self._manifests.document(call, contents, form.version))
        context = manifests.CONTEXT[form.version]
        media = f'{form.media};profile="{context}"' if form.media == "application/ld+json" else form.media
        headers = [
            *self._cors(call),
            *self._caching(call, *self._vary, private=contents.private, age_s=60),
            (b"content-type", media.encode()),
        ]
        return await _send_json(call, headers, data, _etag(data), send)

    @property
    def _origins(self) -> frozenset[str]:
        """Those that are given tokens; once the probe service says yes they ask with their user's credentials."""
        return self._auth.origins if self._auth else frozenset()

    @property
    def _vary(self) -> tuple[str, ...]:
        """What JSON documents depend on."""
        return ("Accept", "Origin") if self._origins else ("Accept",)

    def _cors(self, call: HttpRequest) -> Headers:
        return cors(call.header(b"origin"), self._origins)

    # Pixels

    async def _pixels(self, call: HttpRequest, prepared: Prepared, receive: Receive, send: Send) -> int:
        planned, headers = prepared.planned, prepared.headers
        if planned.private:
            headers = [*self._cors(call), *headers[len(CORS) :]]
        if call.query and _ATTACHMENT in call.query.split("&"):
            kept = [it for it in headers if it[0] != b"content-disposition"]
            headers = [*kept, disposition("attachment", planned.asset, planned.job.format)]
        trace().route = planned.plan.name
        unless, copied = call.unless, isinstance(planned.plan, Thumb)
        span = call.range if copied else None
        try:
            cached = None if span else self.engine.cached(planned, unless=unless)
            if cached is not None:
                send = self._recording(call, send, planned, cached)
                return await (send_head if call.head else self._send)(send, cached, headers)
            if call.head:
                async with self._deadline(call, "stored").limit("the store of renditions"):
                    head = await self.engine.head(planned, unless=unless)
                return await send_head(send, head, headers)
            location = self._options.offload_location
            if location and call.offers_offload(location) and (url := await self.engine.signed_url(planned)):
                return await send_bytes(send, 200, [*_offloaded(headers, location, url), timing()], b"")
            deadline = self._deadline(call, lane_of(planned.plan))
            if copied:
                answer = await self.engine.answer(planned, deadline=deadline, unless=unless, span=span)
                # Where a proxy may fetch it by itself, its next request may offer to.
                if not (unless or span or location) and isinstance(answer.body, bytes):
                    send = self._recording(call, send, planned, answer, gets=1)
            else:  # expensive work ends when its client leaves
                answer = await until_disconnect(self._make(planned, deadline, unless), receive)
        except NotModified as same:
            tag = same.etag or (unless.only_etag if unless else None)
            etag = [(b"etag", tag.encode())] if tag else []
            send = self._recording(call, send, planned, same)
            return await send_bytes(send, 304, [*headers, *etag, timing()], None)
        return await self._send(send, answer, headers)

    def _may_be_cached(self, asset: Asset) -> bool:
        """Whether everybody gets the same of an image, and no code of the operator's is to be asked first."""
        return not asset.restricted and self.engine.hooks is None

    def _recording(
        self, call: HttpRequest, send: Send, planned: PlannedRequest, sent: Answer | NotModified, *, gets: int = 0
    ) -> Send:
        """`send`, by which an answer that took that number of GETs is cached afterwards, if all may have it."""
        if not self._may_be_cached(planned.asset):
            return send
        if isinstance(sent, NotModified):
            return self._response_cache.recording(
                call, send, partial(self._unmodified, planned, call.unless, sent.etag)
            )
        if sent.size > CHUNK_BYTES:  # it counts while it is sent
            return send
        again = self._read_again if gets else self._unchanged
        return self._response_cache.recording(call, send, partial(again, planned, sent.etag, sent.modified), gets=gets)

    def _unmodified(self, planned: PlannedRequest, unless: Unless | None, etag: str | None) -> bytes | None:
        """Nothing, if the answer to these conditions is still that the client has this version."""
        if self.engine.catalog.is_current(planned.asset):
            try:
                self.engine.cached(planned, unless=unless)
            except NotModified as same:
                return b"" if same.etag == etag else None
        return None

    def _unchanged(self, planned: PlannedRequest, etag: str, modified: datetime | None) -> bytes | None:
        """The body of an answer, if it is in memory and still this version."""
        if not self.engine.catalog.is_current(planned.asset):
            return None
        answer = self.engine.cached(planned)
        if answer is None or answer.etag != etag or answer.modified != modified:
            return None
        return answer.body if isinstance(answer.body, bytes) else None

    def _read_again(self, planned: PlannedRequest, etag: str, modified: datetime | None) -> Reading | None:
        """The same, from its store."""
        return self._read(planned, etag, modified) if self.engine.catalog.is_current(planned.asset) else None

    async def _read(self, planned: PlannedRequest, etag: str, modified: datetime | None) -> bytes | None:
        trace().route = planned.plan.name
        deadline = Deadline(self._clock() + self.engine.deadlines_s["stored"], self._clock)
        answer = await self.engine.answer(planned, deadline=deadline)
        if not isinstance(answer.body, bytes):
            await answer.body.aclose()
        elif answer.etag == etag and answer.modified == modified and trace().gets == 1:
            return answer.body
        return None

    async def _send(self, send: Send, answer: Answer, headers: Headers) -> int:
        in_memory_bytes = answer.size if isinstance(answer.body, bytes) else 0
        with self._unsent.holding(trace().client, in_memory_bytes):
            return await send_answer(send, answer, headers)

    async def _make(self, planned: PlannedRequest, deadline: Deadline, unless: Unless | None) -> Answer:
        """An answer that is not in memory. The limit is a backstop: every wait on the way has the same deadline."""
        async with deadline.limit(planned.plan.name):
            await self._fair_start.turn(trace().client)
            return await self.engine.answer(planned, deadline=deadline, unless=unless)

    async def _prepare(self, call: HttpRequest, request: ImageRequest, identity: Identity) -> Prepared:
        version = request.spoken(call.default_version)
        make = self.engine.plan_thumb if call.level0 else self.engine.plan
        planned = await make(request, version=version, identity=identity)
        prepared = Prepared(planned, self._image_headers(call, request, planned, version))
        if planned.final:
            self._prepared.put(_key(call, identity), prepared)
        return prepared

    def _current(self, cache: LRUCache[Key, C], call: HttpRequest, identity: Identity) -> C | None:
        """What was made for this same request, if nothing that it is made of has been looked up again."""
        found = cache.get(_key(call, identity))
        return found if found and self.engine.catalog.is_current(found.asset) else None

    def _image_headers(
        self, call: HttpRequest, request: ImageRequest, planned: PlannedRequest, version: Version
    ) -> Headers:
        level = info.profile(version, 0 if call.level0 else info.level(planned.grant))
        link = f'<{self._uri(call, request)}/{planned.canonical}>;rel="canonical",<{level}>;rel="profile"'
        headers: Headers = [
            *CORS,
            (b"link", link.encode()),
            (b"x-special-route", planned.plan.name.encode()),
            *self._caching(call, private=planned.private, age_s=self._options.max_age_s),
            *self._tag(planned.asset),
            *self._asset_id(request.identifier),
        ]
        if planned.asset.filename is not None:
            headers.append(disposition("inline", planned.asset, request.format))
        if call.level0:
            # What the DLCS says of its own thumbs; sites look for it.
            headers.append((b"x-thumb-match" if isinstance(planned.plan, Thumb) else b"x-thumb-resized", b"1"))
        if isinstance(planned.plan, Thumb):
            headers.append((b"accept-ranges", b"bytes"))
        return headers

    def _asset_id(self, identifier: str) -> Headers:
        """The image's own name, where names have several segments: as a DLCS says it."""
        if self._options.id_segments == 1:
            return []
        name = iiif.quote_identifier(identifier, id_segments=self._options.id_segments)
        return [(b"x-asset-id", name.encode())]

    def _tag(self, asset: Asset) -> Headers:
        name = self._options.cache_tag_header
        image, _ = self._options.form.split(asset.identifier)  # pages are purged with their image
        return [(name.lower().encode(), cache_tag(image).encode())] if name is not None else []

    # Login

    def _opened(self, auth: Auth, call: HttpRequest) -> HttpRequest | None:
        """The request to an image service as it is for strangers; None for a request to something else."""
        prefix, _, path = call.path.removeprefix("open/").partition("/")
        if not (auth.flow.tells_by_status and call.path.startswith("open/") and prefix in PREFIXES):
            return None
        return replace(call, prefix=prefix, path=path, tier=OPEN_TIER)

    async def _authorise(self, auth: Auth, call: HttpRequest, identity: Identity, send: Send) -> int:
        private, head = self._caching(call, private=True, age_s=0), call.head
        service, _, rest = call.path.partition("/")
        if service == "token" and not rest and auth.wants_json(call.query):
            async with self._deadline(call, "stored").limit("verifying a token"):
                status, fields = await auth.token_json(call.headers)
            plain = [(b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff")]
            return await send_bytes(send, status, [*private, *plain], json.dumps(fields).encode(), head=head)
        if service == "token" and not rest:
            async with self._deadline(call, "stored").limit("verifying a token"):
                page, policy = await auth.token_page(call.headers, call.query)
            html = [(b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", policy.encode())]
            return await send_bytes(send, 200, [*private, *html, (b"referrer-policy", b"no-referrer")], page, head=head)
        prefix, _, path = rest.partition("/")
        of = replace(call, prefix=prefix, path=path)
        if service == "probe" and prefix in PREFIXES:
            request = self._parse(path)
            if isinstance(request, BaseRequest):
                uri, caller = self._uri(of, request), auth.bearer_of(call.headers, identity)
                async with self._deadline(call, "stored").limit("looking up the image"):
                    asset = await self._asset(of, request.identifier)
                    caller = await self._identified(call, request.identifier, caller)
                result = probe(asset, uri, caller, limits=self.engine.limits, level0=of.level0)
                headers = [*CORS, *private, (b"content-type", AUTH_MEDIA.encode())]
                return await send_bytes(send, 200, headers, json.dumps(result).encode(), head=head)
        raise NotFound("There is no such service; info.json of a restricted image names those that there are.")

    # Shared by all of them

    async def _identified(self, call: HttpRequest, identifier: str, identity: Identity) -> Identity:
        """The identity with what the operator's own code, where there is any, allows it of an image."""
        if not self.engine.authorises:
            return identity
        image, page = self._options.form.split(identifier)
        return await self.engine.authorised(identity, _caller(call, image, page, identity))

    async def _asset(self, call: HttpRequest, identifier: str) -> Asset:
        return await (self.engine.catalog.find_stored if call.level0 else self.engine.catalog.find)(identifier)

    def _uri(self, call: HttpRequest, request: ImageRequest | InfoRequest | BaseRequest) -> str:
        return call.uri(request, id_segments=self._options.id_segments)

    def _caching(self, call: HttpRequest, *vary: str, private: bool, age_s: int) -> Headers:
        scope = "public" if call.is_shareable else "private"
        value = "private, no-store" if private else f"{scope}, max-age={age_s}"
        headers = [(b"cache-control", value.encode())]
        names = (*vary, *self._verifier.vary) if private else vary
        return [*headers, (b"vary", ", ".join(names).encode())] if names else headers


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=2, ensure_ascii=False).encode()


def _etag(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()[:32]}"'


async def _send_json(call: HttpRequest, headers: Headers, data: bytes, etag: str, send: Send) -> int:
    headers = [*headers, (b"etag", etag.encode())]
    if call.unless and call.unless.hold(etag):
        return await send_bytes(send, 304, headers, None)
    return await send_bytes(send, 200, headers, data, head=call.head)


def cache_tag(identifier: str) -> str:
    """What a CDN purges an image by: its identifier as in a URL, or a digest where CDNs would not take that."""
    quoted = iiif.quote_identifier(identifier)
    return quoted if len(quoted) <= MAX_TAG else hashlib.sha256(identifier.encode()).hexdigest()


def disposition(kind: Literal["inline", "attachment"], asset: Asset, extension: str) -> tuple[bytes, bytes]:
    """The Content-Disposition header (RFC 6266; Image API 2.1, appendix A), with a name for any client."""
    name = asset.filename or asset.identifier.rpartition("/")[2].partition(".")[0] or "image"
    whole = f"{_UNPRINTABLE.sub('_', name)}.{extension}"
    plain = re.sub(r'[^ -~]|["\\]', "_", whole)
    value = f'{kind}; filename="{plain}"'
    if plain != whole:
        value += f"; filename*=UTF-8''{quote(whole, safe='')}"
    return b"content-disposition", value.encode()


def _caller(call: HttpRequest, image: str, page: int, identity: Identity) -> Caller:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in call.headers.items()}
    return Caller(image, headers, call.client, identity.roles, identity.known, page)


def _key(call: HttpRequest, identity: Identity) -> Key:
    return call.tier + call.prefix, call.path, call.base, call.is_shareable, call.form(None).version, identity


def _offloaded(headers: Headers, location: str, url: str) -> Headers:
    """What a proxy is told, which passes on conditions and range too, and keeps most of these headers.

    No cache between may store the signed address; the answer's own Cache-Control has another name on the way.
    """
    renamed = [(b"x-stored-cache-control" if name == b"cache-control" else name, value) for name, value in headers]
    told = [(b"x-accel-redirect", location.encode()), (b"x-stored-url", url.encode())]
    return [*renamed, *told, (b"cache-control", b"no-store")]
