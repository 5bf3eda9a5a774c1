"""From the operator's choice of kinds to a catalogue."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from special.catalogue.bucket_identifiers import BucketIdentifierKind
from special.catalogue.catalogue import Catalogue
from special.catalogue.hooks import GuardedHooks, HookKind, load_hooks
from special.catalogue.http import HttpKind, HttpOptions
from special.catalogue.kind import Kind
from special.catalogue.sqlite import SqliteKind, SqliteOptions
from special.catalogue.templates import TemplateKind
from special.errors import ConfigurationError
from special.iiif import IdentifierForm
from special.images import KeyTemplates
from special.storage import RetryPolicy, S3Options, Sources, open_source

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BucketIdentifiers:
    """That identifiers may be `s3://` addresses."""


KindOptions = KeyTemplates | HttpOptions | SqliteOptions | BucketIdentifiers
SourceOptions = tuple[str, S3Options | None]
"""URL of a source, and how it is reached where the environment does not say it."""


@dataclass(frozen=True, slots=True)
class CatalogueOptions:
    """The catalogue of a server or of a run. A cluster sends it to its workers."""

    sources: tuple[SourceOptions, ...]
    """The default one first."""
    kinds: tuple[KindOptions, ...]
    """Asked in this order."""
    ttl_s: float
    """How long an entry is believed."""
    hooks: str | None = None
    """`package.module:Class` of the operator's own code, which is asked before all kinds where it locates images."""
    form: IdentifierForm = IdentifierForm.NORMAL
    """How identifiers are read."""


def open_sources(sources: Sequence[SourceOptions], *, retry_policy: RetryPolicy | None = None) -> Sources:
    """Several sources as one. Raises `ConfigurationError`; asks nothing over the network."""
    return Sources([open_source(url, s3=s3, retry_policy=retry_policy) for url, s3 in sources])


def open_hooks(options: CatalogueOptions) -> GuardedHooks | None:
    """The operator's own code, if there is any. Raises `ConfigurationError`."""
    return GuardedHooks(load_hooks(options.hooks)) if options.hooks is not None else None


def open_catalogue(options: CatalogueOptions, sources: Sources, hooks: GuardedHooks | None) -> Catalogue:
    """The catalogue that the options describe. Raises `ConfigurationError`; asks nothing over the network."""
    kinds: list[Kind] = [HookKind(hooks)] if hooks is not None and hooks.locates else []
    for number, kind in enumerate(options.kinds, 1):
        match kind:
            case KeyTemplates():
                kinds.append(TemplateKind(kind, sources, is_last=number == len(options.kinds)))
            case HttpOptions():
                kinds.append(HttpKind(kind))
            case SqliteOptions():
                kinds.append(SqliteKind(kind))
            case BucketIdentifiers():
                kinds.append(BucketIdentifierKind(sources))
    if isinstance(kinds[-1], TemplateKind) and len(kinds) > 1:
        log.warning("rules alone restrict what %s finds by its key, not %s", kinds[-1].name, kinds[0].name)
    if len(kinds) > 1 and any(isinstance(it, BucketIdentifierKind) for it in kinds):
        raise ConfigurationError(
            "a catalogue of kind 's3' names any master by its address, past what other kinds restrict: use it alone"
        )
    return Catalogue(kinds, sources, ttl_s=options.ttl_s, form=options.form)
