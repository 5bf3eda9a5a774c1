"""What is said of an image in its info.json, beyond what its pixels tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Description:
    """Properties of info.json that name rights, providers and related resources."""

    rights: str | None = None
    """URI of a licence or a rights statement; `license` in version 2."""
    attribution: str | None = None
    """Text that must be shown with the image; in version 2 alone."""
    provider: Sequence[Mapping[str, Any]] = ()
    """Organisations, as Presentation API 3.0 describes agents; in version 3 alone."""
    service: Sequence[Mapping[str, Any]] = ()
    """Further services, beside those of a login."""
    part_of: Sequence[Mapping[str, Any]] = ()
    """Resources that contain the image, such as a manifest; in version 3 alone."""
    see_also: Sequence[Mapping[str, Any]] = ()
    """Machine-readable descriptions; in version 3 alone."""

    def over(self, general: Description) -> Description:
        """This one, and what another says of properties that this one leaves out."""
        names = self.__dataclass_fields__
        return replace(self, **{name: getattr(self, name) or getattr(general, name) for name in names})
