"""What the new server read from its store for the requests of a run, and what that costs."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from special.errors import ConfigurationError

_ROUTE = re.compile(r'route;desc="([a-z]*)"')
_READ = re.compile(r'desc="gets=(\d+) bytes=(\d+)"')
_GETS, _BYTES = "special_source_gets_total", "special_source_bytes_total"


@dataclass(frozen=True, slots=True)
class Prices:
    """What a store takes for reads. By default S3 Standard in us-east-1, read from the same region (2024)."""

    currency: str = "USD"
    per_1000_gets: float = 0.0004
    per_gb: float = 0.0
    """For a gigabyte (10⁹ bytes) out of the store."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """A TOML file with any of these fields. Raises `ConfigurationError`."""
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"the prices {path} cannot be read: {error}") from None
        kinds: Mapping[str, tuple[type, ...]] = {
            "currency": (str,),
            "per_1000_gets": (int, float),
            "per_gb": (int, float),
        }
        for name, value in found.items():
            if name not in kinds or not isinstance(value, kinds[name]) or isinstance(value, bool):
                raise ConfigurationError(
                    f"the prices {path}: '{name}' is none of currency, per_1000_gets, per_gb as it should be"
                )
        return cls(**found)

    def of(self, gets: float, size_bytes: float) -> float:
        """The price of these GETs and bytes."""
        return gets / 1000 * self.per_1000_gets + size_bytes / 1e9 * self.per_gb


@dataclass(slots=True)
class Reads:
    """Reads that the answers themselves name, in their Server-Timing header."""

    answers: int = 0
    """Answers that name them."""
    gets: int = 0
    bytes: int = 0
    routes: Counter[str] = field(default_factory=Counter)

    def add(self, server_timing: str) -> None:
        """Count one answer, if its header is one of ours."""
        read, route = _READ.search(server_timing), _ROUTE.search(server_timing)
        if read and route:
            self.answers += 1
            self.gets += int(read[1])
            self.bytes += int(read[2])
            self.routes[route[1]] += 1

    def plain(self, prices: Prices) -> dict[str, Any]:
        """For each 1,000 answers that name them."""
        share = 1000 / self.answers if self.answers else 0.0
        gets, size_bytes = self.gets * share, self.bytes * share
        return {
            "answers": self.answers,
            "gets": self.gets,
            "bytes": self.bytes,
            "routes": dict(self.routes.most_common()),
            "per_1000": {"gets": gets, "bytes": size_bytes, "cost": prices.of(gets, size_bytes)},
            "prices": {"currency": prices.currency, "per_1000_gets": prices.per_1000_gets, "per_gb": prices.per_gb},
        }


@dataclass(frozen=True, slots=True)
class Meter:
    """What a server has read since it started, by its metrics: for all clients, prefetching and pyramids included."""

    gets: float
    bytes: float

    @classmethod
    def of(cls, exposition: str | None) -> Self | None:
        """None where the text is no exposition of this server's metrics."""
        try:
            families = list(text_string_to_metric_families(exposition or ""))
        except ValueError:
            return None
        values = {it.name: it.value for family in families for it in family.samples if it.name in (_GETS, _BYTES)}
        return cls(values[_GETS], values[_BYTES]) if len(values) == 2 else None
