"""Every setting, as one frozen record from flags, `SPECIAL_*` variables and a TOML file.

Precedence: flags of the command line, then the environment, then the file, then the defaults
below. A list is written with commas in a flag or a variable, as an array in TOML.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from special import machine
from special.errors import ConfigurationError


def default_home() -> Path:
    """The default folder of volume and renditions: in the user's cache directory. Raises `ConfigurationError`."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "special"
    except RuntimeError:  # a user that is in no list of users, as containers have them
        raise ConfigurationError(
            "this user has no home directory: name a state folder that it may write, with SPECIAL_HOME"
        ) from None


MAX_DEFAULT_WORKERS = 4
"""Maximum number of server processes by default."""


def default_workers() -> int:
    """A process for each of the first few processors, so that cheap answers do not wait for each other.

    More would only take memory: expensive work is done by decoders.
    """
    return min(machine.processors(), MAX_DEFAULT_WORKERS)


def default_decoders(workers: int, processors: int) -> int:
    """A decoder for each processor, and two for each server process where there are two: one is kept for tiles."""
    return max(min(2, processors), math.ceil(processors / workers))


MIN_DEFAULT_DECODER_MEMORY = 384 * 2**20
"""Address space that a decoder needs for anything: 150 MiB once it is ready, and what a picture takes."""
MAX_DEFAULT_DECODER_MEMORY = 4 * 2**30


def default_decoder_memory(memory_bytes: int) -> ByteSize:
    """No more than there is: a decoder then fails at its own limit, and not at the container's, which kills others."""
    return ByteSize(max(MIN_DEFAULT_DECODER_MEMORY, min(MAX_DEFAULT_DECODER_MEMORY, memory_bytes)))


SECRET_ALGORITHMS = ("HS256", "HS384", "HS512")
"""Signatures by a secret that the login page and this server share (RFC 7518, section 3.2)."""
PUBLIC_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures that a public key verifies. `none` is in neither list."""


class AccessRule(BaseModel):
    """Who may see how much of the images whose identifier matches: one `[[rules]]` table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    identifiers: str = Field(min_length=1)
    """A pattern: `*` is any text, slashes included, `?` one character, `[ab]` one of these."""
    max_unauthorised: int = Field(0, ge=-1)
    """Longest side that anybody may have; -1: all, 0: none."""
    roles: tuple[str, ...] = ()
    """Any one of these lifts the restriction, that of a sizes file too."""


class SourceSetting(BaseModel):
    """One more place of masters, beside `source`: one `[[sources]]` table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(min_length=1)
    """As `source`."""
    endpoint: str | None = None
    """URL of another S3 than Amazon's."""
    region: str | None = None
    profile: str | None = None
    """A profile of the AWS configuration files."""
    anonymous: bool | None = None
    """Whether requests are not signed; default: as the environment says."""
    requester_pays: bool = False
    """Whether this account pays for what it reads."""


class TemplatesCatalogue(BaseModel):
    """Keys that are made of the identifier, as `keys` and `slash_substitute` say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["templates"]


class HttpCatalogue(BaseModel):
    """A web service that answers in JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["http"]
    url: str
    """With `{id}` for the identifier, which is percent-encoded."""
    token_file: Path | None = None
    """File with a token that is sent as `Authorization: Bearer`."""
    timeout_s: float = Field(2.0, gt=0)
    """Within which it answers."""


class SqliteCatalogue(BaseModel):
    """A table with a row for each image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["sqlite"]
    file: Path
    table: str = Field("images", min_length=1)


class S3Catalogue(BaseModel):
    """Identifiers that are addresses of masters, `s3://bucket/key`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["s3"]


class DescriptionSetting(BaseModel):
    """What info.json says of every image of which the catalogue does not say otherwise: the table `[description]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rights: str | None = None
    """URI of a licence or a rights statement."""
    attribution: str | None = None
    """Text that must be shown; in version 2 alone."""
    provider: tuple[dict[str, Any], ...] = ()
    """Organisations, as Presentation API 3.0 describes agents."""
    service: tuple[dict[str, Any], ...] = ()
    part_of: tuple[dict[str, Any], ...] = ()
    see_also: tuple[dict[str, Any], ...] = ()


CatalogueSetting = Annotated[
    TemplatesCatalogue | HttpCatalogue | SqliteCatalogue | S3Catalogue, Field(discriminator="kind")
]
"""One kind of catalogue: one `[[catalogue]]` table."""
_TABLES: dict[str, tuple[type[BaseModel], ...]] = {
    "rules": (AccessRule,),
    "description": (DescriptionSetting,),
    "sources": (SourceSetting,),
    "catalogue": (TemplatesCatalogue, HttpCatalogue, SqliteCatalogue, S3Catalogue),
}

PREFIX = "SPECIAL_"
CONFIG_VARIABLE = "SPECIAL_CONFIG"
"""Names the file of settings, as `--config` does."""
INTERNAL_VARIABLES = frozenset(["SPECIAL_RESOLVED_SETTINGS", "SPECIAL_RESOLVED_CONFIG", CONFIG_VARIABLE])
"""Variables that are no setting: the name of the file, and what this program sets for processes of its own."""
_KUBERNETES = re.compile(
    r"SPECIAL_(SERVICE|PORT)_\w+|SPECIAL_\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
_KUBERNETES_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
"""Kubernetes gives each pod variables of every service in its namespace (documentation, "Accessing the Service"): for
one named `special`, `SPECIAL_SERVICE_HOST`, `SPECIAL_PORT=tcp://10.0.0.11:80`, `SPECIAL_PORT_80_TCP_ADDR` and more."""


def _is_injected(name: str, value: str) -> bool:
    """Whether Kubernetes set a variable, which then is no setting."""
    return bool(_KUBERNETES.fullmatch(name) or (name.endswith("_PORT") and _KUBERNETES_ADDRESS.match(value)))


class _Variables(EnvSettingsSource):
    """The environment without what Kubernetes puts there, and without what Compose sets to nothing."""

    def __call__(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in super().__call__().items()
            if not _is_injected(f"{PREFIX}{name.upper()}", str(value)) and (value != "" or _may_be_empty(name))
        }


def _may_be_empty(name: str) -> bool:
    """Whether an empty value means something: no role, no algorithm."""
    return isinstance(Settings.model_fields[name].default, tuple)


class Settings(BaseSettings):
    """All settings of one server or one run of `derive`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    source: str = Field(description="Where the masters are: a folder, s3://bucket/prefix, az://, gs:// or https://.")
    home: Path = Field(default_factory=default_home, description="State folder for what has no place of its own.")
    thumbs: str | None = Field(None, description="Where stored renditions are; default: `thumbs/` in the state folder.")
    volume: Path | None = Field(None, description="Folder of the volume; default: `volume/` in the state folder.")
    volume_size: ByteSize = Field(ByteSize(10 * 2**30), description="Maximum size of the volume on disk.")
    offload: bool = Field(
        False,
        description="Whether a trusted nginx in front that offers to fetches stored renditions from their bucket by "
        "itself; `special/docs/examples/nginx-offload.conf` shows how.",
    )
    offload_location: str = Field(
        "/_stored",
        pattern=r"^/[A-Za-z0-9_/-]{1,64}$",
        description="The internal location by which it does, and which its `X-Offload-To` header names.",
    )
    store_on_miss: bool = Field(
        False,
        description="Whether full regions of `sizes` that had to be made of their master are stored, so that the next "
        "request is answered at once.",
    )
    hot_size: ByteSize = Field(
        ByteSize(64 * 2**20),
        description="Memory of each server process for small renditions, and as much for stored tiles; 0: none.",
    )
    promote_after: int = Field(
        8,
        ge=0,
        description="Tiles after which the volume makes a pyramid of a master whose tiles are expensive; 0: never. "
        "Those that are published are used all the same.",
    )
    pyramids: Literal["expensive", "all"] = Field(
        "expensive",
        description="Which masters get pyramids: `expensive`, those whose tiles take long to make, or `all` that are "
        "larger than a tile.",
    )
    publish_pyramids: bool = Field(
        False,
        description="Whether pyramids that the volume made are stored beside the renditions, for all servers and for "
        "good.",
    )
    tile_size: int = Field(
        512,
        ge=64,
        le=2048,
        multiple_of=16,
        description="Length of the sides of a pyramid's tiles, and of those that info.json offers to viewers.",
    )
    read_ahead: bool = Field(
        True,
        description="Whether the surroundings of a viewer's tiles are prefetched while the server is idle.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    workers: int = Field(
        default_factory=default_workers,
        ge=1,
        description=f"Server processes; default: one for each processor, at most {MAX_DEFAULT_WORKERS}.",
    )
    decoders: int = Field(
        default_factory=lambda known: default_decoders(known.get("workers", 1), machine.processors()),
        ge=1,
        description="Decoder processes of each server process; default: the processors divided by `workers`, "
        "but at least 2 if there are two.",
    )
    decoder_memory: ByteSize = Field(
        default_factory=lambda: default_decoder_memory(machine.memory_bytes()),
        description="Address space of one decoder process; default: 4 GiB, or the memory of the machine or of the "
        "container, if that is less.",
    )
    decoder_idle_s: float = Field(
        60.0,
        ge=0,
        description="Seconds after which a decoder ends that is not needed; others begin when there is work. 0: all "
        "decoders begin with the server, and stay.",
    )
    decode_memory: ByteSize | None = Field(
        None,
        description="Memory for all answers that one server process makes at a time; default: half of the machine's, "
        "or of the container's, divided by `workers`.",
    )

    admin_host: str = Field("127.0.0.1", description="Address of `admin_port`.")
    admin_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Port for `/metrics`, `/status`, `/livez` and `/readyz`; the first two are then nowhere else.",
    )

    log_format: Literal["brief", "json", "logfmt"] = Field(
        "brief",
        description="What is logged: `brief`, failures alone, in words; `json` or `logfmt`, a line per request.",
    )
    otel: bool = Field(
        False,
        description="Whether each request is a span of OpenTelemetry, sent as `OTEL_*` says; needs the extra `otel`.",
    )
    status: bool = Field(False, description="Whether there is a status page at `/status`; it names images.")

    keys: Annotated[tuple[str, ...], NoDecode] = Field(
        ("{id}",), description="Templates from identifier to key; the first object that exists is the master."
    )
    slash_substitute: str = Field(
        "",
        max_length=16,
        description="What stands for a slash in identifiers, such as `__`, for keys of other folders; default: a slash "
        "is a slash.",
    )
    id_segments: int = Field(1, ge=1, le=8, description="Path segments of an identifier: 1, or 3 for a DLCS.")
    id_map: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Other names of the first segment of identifiers, such as those of a DLCS's customers: `test=99`; "
        "needs `id_segments` of 2 or more.",
    )
    default_version: Literal[2, 3] = Field(
        3, description="Version of the Image API at addresses that name none, unless Accept prefers the other."
    )
    redirect_canonical: bool = Field(
        False,
        description="Whether info.json at an address that names the default version leads by 303 to the one without a "
        "version, as on a DLCS.",
    )
    odd_keys: bool = Field(
        False,
        description="Whether the bucket has keys with empty segments or `.`, such as `a//b`, or a folder has "
        "names with decomposed letters (not in NFC); else such identifiers are refused, since some stores have one "
        "object by several of them.",
    )
    pages: bool = Field(
        True,
        description="Whether `{id};3` is page 3 of a TIFF. If so, the image whose own identifier is `a;3` has the "
        "address `a;3;1`; if not, an identifier may end in `;3` like any other.",
    )
    base_url: str | None = Field(None, description="Public URL of the server, for the ids in info.json.")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        ("127.0.0.1", "::1"),
        description="Addresses and networks whose Forwarded and X-Forwarded-* headers are believed; `unix`: Unix "
        "sockets; `*`: all.",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        ("*",), description="Host names that are served, as patterns such as `*.example.org`; others are refused."
    )
    max_url_bytes: int = Field(8192, ge=256, description="Maximum length of a request's URL, query included.")
    max_header_bytes: ByteSize = Field(
        ByteSize(32 * 2**10), description="Maximum length of a request's URL and headers together."
    )
    receive_s: float = Field(10.0, gt=0, description="Maximum time in which a request arrives, in seconds.")
    max_connections: int = Field(
        4096,
        ge=1,
        description="Maximum number of connections of a server process, idle ones included, and half of its "
        "descriptors at most; a quarter of them for one client address.",
    )
    gallery: bool | None = Field(None, description="List images at `/`; default: on for a folder, off for a bucket.")
    viewer_assets: Path | None = Field(
        None, description="Folder with another openseadragon.min.js than that of the package."
    )

    max_width: int | None = Field(None, ge=1, description="Maximum width of an answer, in pixels.")
    max_height: int | None = Field(None, ge=1, description="Maximum height of an answer, in pixels.")
    max_area: int | None = Field(100_000_000, ge=1, description="Maximum area of an answer, in pixels.")
    max_master_pixels: int = Field(
        2_000_000_000, ge=1, description="Maximum number of pixels that are decoded for an answer."
    )
    max_whole_bytes: ByteSize = Field(
        ByteSize(2 * 2**30), description="Maximum size of an object that is read whole, where no cheaper plan exists."
    )
    pdf_dpi: int = Field(
        300, ge=18, le=2400, description="Pixels per inch of the pages of a PDF at their full size (extra `pdf`)."
    )
    upscaling: bool = Field(False, description="Whether answers may be larger than their region (`^`).")
    upscale_percent: int = Field(0, ge=0, description="How far `/thumbs/` may enlarge its largest rendition.")
    sizes: str = Field(
        "1024,400,200,100", description="What `derive` makes: long sides, or IIIF sizes such as `!1024,1024 400, ,300`."
    )
    formats: Annotated[tuple[Literal["jpg", "webp"], ...], NoDecode] = Field(
        ("jpg",), min_length=1, description="What `derive` makes each size as: `jpg`, `webp`, or both."
    )
    max_unauthorised: int | None = Field(
        None,
        ge=-1,
        description="Longest side of what `derive` makes that is open to all; -1: any, 0: none.",
    )
    jpeg_quality: int = Field(85, ge=1, le=100, description="Quality of the JPEGs that are made.")
    webp_quality: int = Field(80, ge=1, le=100, description="Quality of the WebPs that are made.")
    avif_quality: int = Field(60, ge=1, le=100, description="Quality of the AVIFs that are made.")
    physical_dimensions: bool = Field(
        default=False,
        description="Whether info.json has the physical dimensions of images whose masters tell their resolution.",
    )
    keep_profile: bool = Field(
        False,
        description="Whether answers keep the resolution that the master tells, and the colours and the profile, up to "
        "32 KB, of one in RGB or grey that is not sRGB; such masters get no pyramids.",
    )
    max_age_s: int = Field(86400, ge=0, description="Cache-Control max-age of image answers, in seconds.")
    asset_ttl_s: float = Field(
        60.0, ge=0, description="How long metadata of a master or a sizes file is believed before it is checked again."
    )
    request_ms: float = Field(
        0.5, ge=0, description="Cost of one more GET beside others, in milliseconds; 0.43 ms of CPU was measured."
    )
    bandwidth: ByteSize = Field(
        ByteSize(128 * 2**20),
        description="Bytes that the store sends in a second; a gap that takes less time than a GET is read along.",
    )

    rules: tuple[AccessRule, ...] = Field(
        (),
        description="Tables `[[rules]]` with `identifiers` (a pattern such as `private/*`), `max_unauthorised` and "
        "`roles`; the first that matches counts, and never opens what a sizes file restricts.",
    )
    sources: tuple[SourceSetting, ...] = Field(
        (),
        description="Tables `[[sources]]` of further places of masters: `url`, and for S3 `endpoint`, `region`, "
        "`profile`, `anonymous`, `requester_pays`.",
    )
    catalogue: tuple[CatalogueSetting, ...] = Field(
        (),
        description="Tables `[[catalogue]]` that say where masters are and who may see them, asked one after the "
        "other: `kind` is `templates`, `http` (`url` with `{id}`, `token_file`, `timeout_s`), `sqlite` (`file`, "
        "`table`) or `s3`.",
    )
    catalogue_ttl_s: float = Field(
        60.0, ge=0, description="How long an entry of a catalogue is believed before it is asked for again."
    )
    hooks: str | None = Field(
        None,
        pattern=r"^[\w.]+:\w+$",
        description="Python class `package.module:Class` of the operator's own code, a subclass of "
        "`special.catalogue.Hooks`.",
    )
    description: DescriptionSetting | None = Field(
        None,
        description="Table `[description]` of what info.json says of every image: `rights`, `attribution`, and lists "
        "`provider`, `service`, `part_of`, `see_also`; a catalogue may say otherwise of one.",
    )
    admin_token_file: Path | None = Field(
        None,
        description="File with the token for `DELETE /admin/images/{id}`, which purges an image from memory and volume "
        "of this machine; default: there is no such address.",
    )
    cache_tag_header: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]{1,64}$",
        description="Header with the image's tag, by which a CDN purges all answers of one image: `Surrogate-Key`, "
        "`Cache-Tag`.",
    )
    default_roles: Annotated[tuple[str, ...], NoDecode] = Field(
        ("reader",), description="Roles that lift a restriction that only a sizes file makes."
    )
    jwt_key: Path | None = Field(
        None, description="File with the key that verifies JWTs: a secret of 32 bytes or more, or a public key as PEM."
    )
    jwt_jwks: str | None = Field(None, description="File or https:// address of the public keys that verify JWTs.")
    jwt_algorithms: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Signatures of JWTs that are believed, such as `RS256`; needed with either kind of key."
    )
    jwt_cookie: str | None = Field(None, description="Cookie that may carry the JWT, beside `Authorization: Bearer`.")
    jwt_roles_claim: str = Field(
        "roles", description="Claim with the roles, a list or words; a dotted name leads into nested claims."
    )
    jwt_issuer: str | None = Field(None, description="Issuer (`iss`) that JWTs must name.")
    jwt_audience: str | None = Field(None, description="Audience (`aud`) that JWTs must name.")
    auth_profile: Literal["active", "clickthrough", "external", "kiosk"] | None = Field(
        None,
        description="How viewers take users to the login page: active (a login), clickthrough (terms of use), "
        "external, kiosk.",
    )
    auth_versions: Annotated[tuple[Literal["1", "2"], ...], NoDecode] = Field(
        ("2",),
        min_length=1,
        description="IIIF APIs for the login that info.json names: `1`, Authentication 1.0, which Mirador and the "
        "Universal Viewer know; `2`, Authorization Flow 2.0. With `1`, info.json of an image that a caller may not see "
        "in full leads by 302 to that of the smaller picture.",
    )
    auth_login_url: str | None = Field(None, description="The login page, which sets `jwt_cookie` and closes its tab.")
    auth_logout_url: str | None = Field(None, description="The page that takes `jwt_cookie` away again.")
    auth_label: str | None = Field(
        None, description="What viewers call the login; it should name the institution. Default: by the page's host."
    )
    auth_note: str | None = Field(
        None, description="What viewers say before the login, such as terms of use; default: a sentence."
    )
    auth_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins of viewers that are given access tokens, such as `https://example.org`, and may fetch "
        "info.json with cookies; default: tokens for any, cookies for none.",
    )
    auth_token_key: Path | None = Field(
        None,
        description="File with the secret of access tokens, which several machines share; default: made in the state "
        "folder.",
    )

    @field_validator(
        "keys",
        "formats",
        "trusted_proxies",
        "allowed_hosts",
        "default_roles",
        "jwt_algorithms",
        "auth_origins",
        "auth_versions",
        "id_map",
        mode="before",
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("keys")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for template in value:
            if "{" not in template:
                raise ValueError(f"the key template '{template}' lacks {{id}}")
        if not value:
            raise ValueError("name at least one key template, such as {id}")
        return value

    @field_validator("base_url")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "")
        if value and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment):
            raise ValueError("write it whole, such as https://images.example.org or https://example.org/images")
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _reachable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one host, or * for any")
        return value

    @field_validator("jwt_algorithms")
    @classmethod
    def _verifiable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in (*SECRET_ALGORITHMS, *PUBLIC_ALGORITHMS):
                raise ValueError(f"'{name}' is none of {', '.join((*SECRET_ALGORITHMS, *PUBLIC_ALGORITHMS))}")
        if set(value) & set(SECRET_ALGORITHMS) and set(value) & set(PUBLIC_ALGORITHMS):
            # A client that has a public key could sign with it as if it were a secret (RFC 8725, section 2.1).
            raise ValueError("name either HS… algorithms or those of public keys, never both")
        return value

    @model_validator(mode="after")
    def _admin_is_apart(self) -> Self:
        if self.admin_port == self.port:
            raise ValueError("admin_port and port must be different")
        return self

    @model_validator(mode="after")
    def _access_is_whole(self) -> Self:
        keyed = self.jwt_key is not None or self.jwt_jwks is not None
        if self.jwt_key is not None and self.jwt_jwks is not None:
            raise ValueError("set jwt_key or jwt_jwks, not both")
        if keyed != bool(self.jwt_algorithms):
            raise ValueError("jwt_algorithms and one of jwt_key and jwt_jwks need each other")
        if self.jwt_jwks is not None and set(self.jwt_algorithms) & set(SECRET_ALGORITHMS):
            raise ValueError("jwt_jwks has public keys; for HS… algorithms set jwt_key")
        if self.auth_profile is not None and not (keyed and self.jwt_cookie):
            raise ValueError("auth_profile needs jwt_cookie and a key: the token service reads that cookie")
        if self.auth_profile in ("active", "clickthrough", "kiosk") and not self.auth_login_url:
            raise ValueError(f"auth_profile '{self.auth_profile}' needs auth_login_url")
        return self

    @field_validator("id_map")
    @classmethod
    def _paired(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pair in value:
            if not all(pair.partition("=")) or pair.count("=") != 1 or "/" in pair:
                raise ValueError(f"'{pair}' should be a name and what it stands for, such as test=99")
        return value

    @property
    def master_keys(self) -> tuple[str, ...]:
        """Templates from identifier to key; unless some are set those of a DLCS, where identifiers are like its own."""
        return self.keys if "keys" in self.model_fields_set or self.id_segments != 3 else ("{id}", "{id}/original")

    @property
    def id_aliases(self) -> dict[str, str]:
        """Other names of identifiers' first segment, and what it is."""
        return dict(pair.split("=") for pair in self.id_map)

    @property
    def thumbs_url(self) -> str:
        """Where renditions are stored, the default included."""
        return self.thumbs or str(self.home / "thumbs")

    @property
    def volume_directory(self) -> Path:
        """Where the volume is, the default included."""
        return self.volume or self.home / "volume"

    @property
    def access_token_key(self) -> Path:
        """Where the secret of access tokens is, the default included."""
        return self.auth_token_key or self.home / "access-tokens.key"

    @property
    def decode_budget_bytes(self) -> int:
        """Memory for all answers in the making, the default included."""
        return int(self.decode_memory or machine.memory_bytes() // 2 // self.workers)

    @property
    def max_gap_bytes(self) -> int:
        """The widest gap that costs less to read along than another GET: 64 KiB by default."""
        return int(self.request_ms / 1000 * self.bandwidth)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags and variables only; `load` adds the file."""
        return init_settings, _Variables(settings_cls)


def load(config: Path | None = None, **flags: Any) -> Settings:
    """Settings from flags (None: not given), the environment and a TOML file.

    Raises `ConfigurationError` with one sentence that names the setting and what is wrong with it.
    """
    _check_variables(os.environ.items())
    given = {name: value for name, value in flags.items() if value is not None}
    kind: type[Settings] = Settings
    if config is not None:
        if not config.is_file():
            raise ConfigurationError(f"there is no configuration file {config}")

        class FromFile(Settings):
            @classmethod
            def settings_customise_sources(cls, settings_cls: type[BaseSettings], *sources: Any, **named: Any) -> Any:
                return named["init_settings"], _Variables(settings_cls), TomlConfigSettingsSource(settings_cls, config)

        kind = FromFile
    try:
        return kind(**given)
    except ValidationError as error:
        # A name that is mistyped is why the one that it was meant to be is missing.
        first = min(error.errors(), key=lambda it: it["type"] != "extra_forbidden")
        name = ".".join(str(part) for part in first["loc"])
        if (first["type"], name) == ("missing", "source"):
            raise ConfigurationError(
                "which masters? Name their source: SOURCE on the command line, the variable SPECIAL_SOURCE, or source "
                "in a file that --config names"
            ) from None
        if first["type"] == "extra_forbidden":
            tables = _TABLES[str(first["loc"][0])] if len(first["loc"]) > 1 else (Settings,)
            fields = [name for table in tables for name in table.model_fields]
            raise ConfigurationError(f"there is no setting '{name}'{_hint(str(first['loc'][-1]), fields)}") from None
        said = first["msg"].removeprefix("Value error, ")
        if first["type"].startswith("byte_size"):
            said = "write a number of bytes, or one with its unit, such as 200GiB"
        if not name:
            raise ConfigurationError(said) from None
        raise ConfigurationError(f"setting '{name}': {said} (got {first.get('input')!r})") from None
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"configuration file {config}: {error}") from None


def origins(config: Path | None, flags: Mapping[str, Any]) -> dict[str, str]:
    """Where the value of each setting comes from that is not a default: in words, by its name."""
    found = dict.fromkeys(TomlConfigSettingsSource(Settings, config)() if config else (), str(config))
    found |= {name: f"the variable {PREFIX}{name.upper()}" for name in _Variables(Settings)()}
    return found | {name: "the command line" for name, value in flags.items() if value is not None}


def with_rules_of(config: Path, chosen: Settings) -> Settings:
    """The same settings with the rules and default roles as flags, environment and file have them now.

    Raises `ConfigurationError` and `OSError`. What else the file says counts only at a start.
    """
    given = {name: getattr(chosen, name) for name in chosen.model_fields_set - _READ_AGAIN}
    found = load(config, **given)
    return chosen.model_copy(update={name: getattr(found, name) for name in _READ_AGAIN})


_READ_AGAIN = frozenset(["rules", "default_roles"])


def _check_variables(variables: Iterable[tuple[str, str]]) -> None:
    """Raise `ConfigurationError` for a `SPECIAL_` variable that is no setting: it would be without any effect."""
    known = [name.upper() for name in Settings.model_fields]
    for variable, value in variables:
        upper = variable.upper()
        name = upper.removeprefix(PREFIX)
        if name == upper or name in known or upper in INTERNAL_VARIABLES or _is_injected(upper, value):
            continue
        raise ConfigurationError(f"the variable {variable} is no setting of special{_hint(name, known, PREFIX)}")


def _hint(name: str, known: Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {prefix}{close[0]}?" if close else "; `special docs settings` lists them"
