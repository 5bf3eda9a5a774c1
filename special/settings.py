"""Every setting, as one frozen record from flags, `SPECIAL_*` variables and a TOML file.

Precedence: flags of the command line, then the environment, then the file, then the defaults
below. A list is written with commas in a flag or a variable, as an array in TOML.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import ByteSize, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from special.errors import ConfigurationError


def default_home() -> Path:
    """Where volume and renditions live when nobody says otherwise: the user's cache directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "special"


class Settings(BaseSettings):
    """All settings of one server or one run of `derive`."""

    model_config = SettingsConfigDict(env_prefix="SPECIAL_", frozen=True, extra="forbid")

    source: str = Field(description="Where the masters are: a folder, s3://bucket/prefix, az://, gs:// or https://.")
    home: Path = Field(default_factory=default_home, description="State folder for what has no place of its own.")
    thumbs: str | None = Field(None, description="Where stored renditions are; default: `thumbs/` in the state folder.")
    volume: Path | None = Field(None, description="Folder of the volume; default: `volume/` in the state folder.")
    volume_size: ByteSize = Field(ByteSize(10 * 2**30), description="Most that the volume may take on disk.")
    promote_after: int = Field(
        8, ge=0, description="Tiles after which the volume makes a pyramid of a master that is dear per tile; 0: never."
    )
    tile_size: int = Field(
        512,
        ge=64,
        le=2048,
        multiple_of=16,
        description="Length of the sides of a pyramid's tiles, and of those that viewers are told to ask for.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    workers: int = Field(1, ge=1, description="Server processes.")
    decoders: int = Field(
        default_factory=lambda: os.cpu_count() or 1, ge=1, description="Decoder processes of each server process."
    )
    decoder_memory: ByteSize = Field(ByteSize(4 * 2**30), description="Address space of one decoder process.")

    keys: Annotated[tuple[str, ...], NoDecode] = Field(
        ("{id}",), description="Templates from identifier to key; the first object that exists is the master."
    )
    id_segments: int = Field(1, ge=1, le=8, description="Path segments of an identifier: 1, or 3 for a DLCS.")
    base_url: str | None = Field(None, description="Public URL of the server, for the ids in info.json.")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        ("127.0.0.1", "::1"), description="Addresses whose X-Forwarded-* headers are believed."
    )
    gallery: bool | None = Field(None, description="List images at `/`; default: on for a folder, off for a bucket.")
    viewer_assets: Path | None = Field(None, description="Folder with openseadragon.min.js, instead of the CDN.")

    max_width: int | None = Field(None, ge=1, description="Widest answer, in pixels.")
    max_height: int | None = Field(None, ge=1, description="Highest answer, in pixels.")
    max_area: int | None = Field(100_000_000, ge=1, description="Largest answer, in pixels.")
    max_master_pixels: int = Field(2_000_000_000, ge=1, description="Largest master that is decoded, in pixels.")
    max_whole_bytes: ByteSize = Field(
        ByteSize(2 * 2**30), description="Largest object that is read whole, where no cheaper plan exists."
    )
    upscaling: bool = Field(False, description="Whether answers may be larger than their region (`^`).")
    upscale_percent: int = Field(0, ge=0, description="How far `/thumbs/` may enlarge its largest rendition.")
    sizes: str = Field(
        "1024,400,200,100", description="What `derive` makes: long sides, or IIIF sizes such as `!1024,1024 400, ,300`."
    )
    max_unauthorised: int | None = Field(
        None,
        ge=-1,
        description="Longest side of what `derive` makes that anybody may have; -1: all, 0: none.",
    )
    jpeg_quality: int = Field(85, ge=1, le=100, description="Quality of the JPEGs that are made.")
    webp_quality: int = Field(80, ge=1, le=100, description="Quality of the WebPs that are made.")
    max_age_s: int = Field(86400, ge=0, description="Cache-Control max-age of image answers, in seconds.")
    asset_ttl_s: float = Field(
        60.0, ge=0, description="How long metadata of a master or a sizes file is believed before it is checked again."
    )
    request_ms: float = Field(
        0.5, ge=0, description="What one more GET costs beside others, in milliseconds; 0.43 ms of CPU was measured."
    )
    bandwidth: ByteSize = Field(
        ByteSize(128 * 2**20),
        description="What the store sends in a second; narrower gaps than both make are read along.",
    )

    @field_validator("keys", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("keys")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for template in value:
            if "{id}" not in template:
                raise ValueError(f"the key template '{template}' lacks {{id}}")
        if not value:
            raise ValueError("name at least one key template, such as {id}")
        return value

    @property
    def thumbs_url(self) -> str:
        """Where renditions are stored, the default included."""
        return self.thumbs or str(self.home / "thumbs")

    @property
    def volume_directory(self) -> Path:
        """Where the volume is, the default included."""
        return self.volume or self.home / "volume"

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
        return init_settings, env_settings


def load(config: Path | None = None, **flags: Any) -> Settings:
    """Settings from flags (None: not given), the environment and a TOML file.

    Raises `ConfigurationError` with one sentence that names the setting and what is wrong with it.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    kind: type[Settings] = Settings
    if config is not None:
        if not config.is_file():
            raise ConfigurationError(f"there is no configuration file {config}")

        class FromFile(Settings):
            @classmethod
            def settings_customise_sources(cls, settings_cls: type[BaseSettings], *sources: Any, **named: Any) -> Any:
                return named["init_settings"], named["env_settings"], TomlConfigSettingsSource(settings_cls, config)

        kind = FromFile
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"setting '{name}': {first['msg']} (got {first.get('input')!r})") from None
    except ValueError as error:
        raise ConfigurationError(f"configuration file {config}: {error}") from None
