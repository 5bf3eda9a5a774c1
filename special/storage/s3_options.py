"""How one bucket of S3 is reached: an operator's buckets may be of several accounts and of several kinds of S3."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class S3Options:
    """How one bucket is reached, where that differs from what the environment says."""

    endpoint: str | None = None
    """URL of another S3 than Amazon's."""
    region: str | None = None
    profile: str | None = None
    """A profile of the AWS configuration files, with its credentials."""
    anonymous: bool | None = None
    """Whether requests are not signed; None: as the environment says."""
    requester_pays: bool = False
    """Whether this account pays for what it reads."""
