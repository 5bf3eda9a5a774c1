"""Builds the services of a server or of a run from its settings: the one module that knows both sides."""

from __future__ import annotations

from collections.abc import Sequence

from special.auth import Flow, PatternRule, Rules, RulesInForce, Verifier, key_file, key_set
from special.catalogue import (
    BucketIdentifiers,
    Catalogue,
    CatalogueOptions,
    GuardedHooks,
    HttpOptions,
    KindOptions,
    SqliteOptions,
    open_catalogue,
    open_hooks,
    open_sources,
)
from special.codecs import Encoding
from special.concurrency import StoreSilence
from special.errors import ConfigurationError
from special.formats import tiff
from special.iiif import IdentifierForm, Limits, Spelling
from special.images import OPEN, Description, KeyTemplates, Masters, Rule
from special.renditions import Policy, PyramidName, RenditionStore, RenditionWriter
from special.serving import (
    PIXELS_VERSION,
    PYRAMID_LANE,
    Catalog,
    DerivativeRoute,
    Engine,
    MasterRenderer,
    Prefetcher,
    PublishedTiles,
    PyramidBuilder,
    PyramidPublisher,
    PyramidTiles,
    ReadLimits,
    Resources,
    StreamRoute,
    ThumbRoute,
    TileRoute,
    govern,
)
from special.settings import (
    AccessRule,
    HttpCatalogue,
    S3Catalogue,
    Settings,
    SourceSetting,
    SqliteCatalogue,
    TemplatesCatalogue,
)
from special.storage import (
    Bucket,
    Folder,
    S3Options,
    Source,
    Sources,
    folder_path,
    learning_absence,
    open_source,
    with_endpoint,
)
from special.volume import Volume
from special.workers import AdmissionController, Lane, Workers, standard_lanes

STORED_DEADLINE_S = 5.0
"""From arrival to answer where no codec works: 304, info.json, stored renditions."""
STALE_S = 300.0
"""How much longer than `asset_ttl_s` metadata of open images is believed while its store does not answer."""


def engine(settings: Settings) -> Engine:
    """An engine made as the settings say; it must be entered before use. Raises `ConfigurationError`."""
    templates, in_force = key_templates(settings), RulesInForce(rules(settings))
    options = catalogue_options(settings)
    hooks = open_hooks(options) if options is not None else None
    source: Source
    catalogue: Catalogue | None = None
    if options is None:
        source = open_source(settings.source)
    else:
        source = sources = open_sources(options.sources)
        catalogue = open_catalogue(options, sources, hooks)
    thumbs = open_source(settings.thumbs_url, create=True)

    def is_open(identifier: str) -> bool:
        names = templates.form.names(identifier)
        if catalogue is None:
            return in_force.rules.govern(OPEN, *names, *templates.keys_of(identifier)) == OPEN
        entry = catalogue.peek(identifier)
        return entry is not None and govern(in_force.rules, OPEN, entry, *names, *catalogue.names(entry)) == OPEN

    silence = StoreSilence(STALE_S)  # of both: they mostly are one store
    store = RenditionStore(
        thumbs,
        ttl_s=settings.asset_ttl_s,
        cache_bytes=int(settings.hot_size),
        silence=silence,
        is_open=is_open,
    )
    volume = _volume(settings, source, thumbs)
    masters = Masters(
        source,
        templates=templates,
        ttl_s=settings.asset_ttl_s,
        silence=silence,
        is_open=is_open,
        max_gap_bytes=settings.max_gap_bytes,
        pdf_dpi=settings.pdf_dpi,
        metadata=volume.metadata,
        locator=catalogue,
    )
    workers = Workers(
        settings.decoders,
        memory_bytes=int(settings.decoder_memory),
        lanes=lanes(settings),
        idle_s=settings.decoder_idle_s or None,
    )
    return assemble(
        settings,
        source=source,
        store=store,
        masters=masters,
        volume=volume,
        workers=workers,
        in_force=in_force,
        catalogue=catalogue,
        hooks=hooks,
    )


def assemble(
    settings: Settings,
    *,
    source: Source,
    store: RenditionStore,
    masters: Masters,
    volume: Volume,
    workers: Workers,
    in_force: RulesInForce | None = None,
    catalogue: Catalogue | None = None,
    hooks: GuardedHooks | None = None,
) -> Engine:
    """An engine of services that are already made; without `in_force` by the rules of the settings."""
    policy = rendition_policy(settings)
    encoding = policy.qualities
    admission = AdmissionController(
        lanes(settings), budget_bytes=settings.decode_budget_bytes, job_bytes=int(settings.decoder_memory)
    )
    renderer = MasterRenderer(masters, workers, admission, encoding, read_limits(settings))
    # Of the masters in folders of this machine only pyramids and metadata go to the volume.
    folders = source.folders if isinstance(source, Sources) else frozenset[str]()
    reader = source if isinstance(source, Folder) else volume.reader(source, in_place=folders)
    grids = tiff.PyramidGrids(settings.tile_size, tiff.WANTED[settings.pyramids])
    builder = PyramidBuilder(
        renderer,
        volume,
        reader,
        after=settings.promote_after,
        tile=settings.tile_size,
        on_published=lambda blob: pyramids.look_again(blob),
    )
    name = PyramidName(settings.tile_size, settings.jpeg_quality, PIXELS_VERSION)
    published = PublishedTiles(
        renderer, store.source, volume.reader(store.source), name, always=settings.publish_pyramids
    )
    pyramids = PyramidTiles(renderer, volume.pyramids, builder.name, tile=grids.tile)
    publisher = PyramidPublisher(store.source, pyramids, published) if settings.publish_pyramids else None
    prefetcher = (
        Prefetcher(volume, source, masters, is_busy=lambda: workers.busy, in_place=folders)
        if settings.read_ahead and not isinstance(source, Folder)
        else None
    )
    writer = RenditionWriter(store, policy) if settings.store_on_miss else None
    in_force = in_force or RulesInForce(rules(settings))
    catalog = Catalog(store, masters, in_force, tiling_for=grids.tiling, catalogue=catalogue)
    tile = TileRoute(
        renderer,
        volume,
        reader,
        grids,
        builder,
        pyramids,
        published,
        publisher=publisher,
        master_of=catalog.master,
        prefetcher=prefetcher,
        max_running=2 * settings.decoders,  # enough to keep all decoders busy while others are being read
        hot_bytes=int(settings.hot_size),
    )

    async def remove(identifier: str, urls: Sequence[str]) -> None:
        tile.purge(identifier)
        for url in urls:
            await volume.remove(url)

    tile_s, full_s, max_s = (it.deadline_s for it in standard_lanes(1))
    background = (writer, builder, prefetcher, publisher, published)
    return Engine(
        catalog,
        {
            "thumb": ThumbRoute(store),
            "derivative": DerivativeRoute(store, renderer, tile.smallest_tile),
            "stream": StreamRoute(renderer, source, writer, tile.render_full),
            "tile": tile,
        },
        source=source,
        hooks=hooks,
        description=description(settings),
        measures=settings.physical_dimensions,
        admission=admission,
        resources=Resources(
            opened=(volume, workers, learning_absence(source, store.source)),
            closed_last=(
                source.close,
                *(it.close for it in (hooks, catalogue) if it is not None),
                store.close,
                masters.close,
            ),
            closed_first=tuple(it.close for it in background if it is not None),
        ),
        limits=Limits(settings.max_width, settings.max_height, settings.max_area, settings.upscaling),
        upscale_percent=settings.upscale_percent,
        deadlines_s={"stored": STORED_DEADLINE_S, "tile": tile_s, "full": full_s, "max": max_s},
        is_ready=lambda: workers.ready,
        remove=remove,
    )


def mounted(settings: Settings) -> tuple[Folder | Bucket, Volume]:
    """The source and the volume of a mount, as the settings say. Raises `ConfigurationError`."""
    source = open_source(settings.source)
    return source, _volume(settings, source)


def _volume(settings: Settings, *sources: Source) -> Volume:
    return Volume(settings.volume_directory, size_bytes=int(settings.volume_size), name_of=with_endpoint(*sources))


def identifier_form(settings: Settings) -> IdentifierForm:
    """How identifiers are read."""
    places = (settings.source, *(it.url for it in settings.sources))
    spelling = Spelling.NORMAL_NFC if any(map(folder_path, places)) else Spelling.NORMAL
    return IdentifierForm(Spelling.ODD if settings.odd_keys else spelling, settings.pages)


def key_templates(settings: Settings) -> KeyTemplates:
    """How identifiers and keys of masters belong together."""
    return KeyTemplates(
        settings.master_keys, settings.id_segments, identifier_form(settings), settings.slash_substitute
    )


def catalogue_options(settings: Settings) -> CatalogueOptions | None:
    """What says where masters are; None where one source and its key templates do. Raises `ConfigurationError`."""
    if not (settings.catalogue or settings.sources or settings.hooks):
        return None
    kinds = tuple(_kind(settings, it) for it in settings.catalogue) or (key_templates(settings),)
    sources = ((settings.source, None), *((it.url, _s3_options(it)) for it in settings.sources))
    return CatalogueOptions(sources, kinds, settings.catalogue_ttl_s, settings.hooks, identifier_form(settings))


def _kind(
    settings: Settings, setting: TemplatesCatalogue | HttpCatalogue | SqliteCatalogue | S3Catalogue
) -> KindOptions:
    match setting:
        case TemplatesCatalogue():
            return key_templates(settings)
        case HttpCatalogue(url=url, token_file=file, timeout_s=timeout_s):
            try:
                token = file.read_text("utf-8").strip() if file is not None else None
            except OSError as error:
                raise ConfigurationError(
                    f"the token of a catalogue, {file}, cannot be read: {error.strerror}"
                ) from None
            return HttpOptions(url, token, timeout_s)
        case SqliteCatalogue(file=file, table=table):
            return SqliteOptions(file, table)
        case S3Catalogue():
            return BucketIdentifiers()


def _s3_options(setting: SourceSetting) -> S3Options | None:
    options = S3Options(
        setting.endpoint, setting.region, setting.profile, setting.anonymous, requester_pays=setting.requester_pays
    )
    return options if options != S3Options() else None


def rules(settings: Settings) -> Rules:
    """The operator's rules for who may see how much of which images."""
    patterns = tuple(PatternRule.of(it.identifiers, _rule(it)) for it in settings.rules)
    return Rules(patterns, frozenset(settings.default_roles))


def _rule(setting: AccessRule) -> Rule:
    limit = None if setting.max_unauthorised == -1 else setting.max_unauthorised
    return Rule(limit, frozenset(setting.roles))


def verifier(settings: Settings) -> Verifier:
    """What finds a client's identity; reads key files. Raises `ConfigurationError`."""
    algorithms = settings.jwt_algorithms
    return Verifier(
        key_file(settings.jwt_key, algorithms)
        if settings.jwt_key is not None
        else key_set(settings.jwt_jwks, algorithms)
        if settings.jwt_jwks is not None
        else None,
        cookie=settings.jwt_cookie,
        roles_claim=settings.jwt_roles_claim,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
    )


def flow(settings: Settings) -> Flow | None:
    """How users log in; None where the settings name no profile."""
    if settings.auth_profile is None:
        return None
    return Flow(
        settings.auth_profile,
        settings.auth_login_url,
        settings.auth_logout_url,
        settings.auth_label or "",
        settings.auth_note or "",
        frozenset(map(int, settings.auth_versions)),
    )


def rendition_policy(settings: Settings) -> Policy:
    """Which renditions every master should have. Raises `ConfigurationError`."""
    return Policy.of(
        settings.sizes,
        max_unauthorised=settings.max_unauthorised,
        formats=settings.formats,
        qualities=Encoding(
            jpeg_quality=settings.jpeg_quality,
            webp_quality=settings.webp_quality,
            avif_quality=settings.avif_quality,
            keep_profile=settings.keep_profile,
        ),
    )


def description(settings: Settings) -> Description:
    """What is said of every image."""
    said = settings.description
    if said is None:
        return Description()
    return Description(said.rights, said.attribution, said.provider, said.service, said.part_of, said.see_also)


def read_limits(settings: Settings) -> ReadLimits:
    """How much of one master may be read and decoded for one picture."""
    return ReadLimits(
        settings.max_gap_bytes, int(settings.max_whole_bytes), settings.max_master_pixels, settings.pdf_dpi
    )


def lanes(settings: Settings) -> tuple[Lane, ...]:
    """The lanes of a server's decoders."""
    return *standard_lanes(settings.decoders), PYRAMID_LANE
