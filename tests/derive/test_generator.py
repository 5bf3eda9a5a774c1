"""One image's renditions: what is read, what is written, in which order, and what a kill leaves behind."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from PIL import Image

from special import formats, settings
from special.auth import Rules
from special.codecs.render import Rendered
from special.derive.generator import Generator
from special.derive.inputs import InputImage
from special.derive.outcome import Outcome
from special.derive.plan import Consent
from special.derive.run import resource_options_of
from special.errors import Changed, Malformed, Missing, TooExpensive, Unsupported
from special.formats.layout import Piece
from special.formats.parser import solve
from special.geometry import Box, Size
from special.iiif import Job
from special.images import KeyTemplates, Rule
from special.renditions import PyramidName, RenditionStore, SizesFile
from special.serving.read_piece import ReadLimits
from special.storage.blob import Absent, Blob, Span
from tests.support.memory import MemorySource
from tests.support.policies import policy

ID = "leaf.jpg"
ALL = Consent(adopt=True, open_restricted=True)


def picture(width: int, height: int, *, origin: str = "", kind: str = "jpg") -> bytes:
    file = io.BytesIO()
    image = Image.new("RGB", (width, height), "teal")
    if kind == "webp":
        image.save(file, "WEBP", xmp=origin.encode())
    else:
        image.save(file, "JPEG", comment=origin.encode())
    return file.getvalue()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def size_of(data: bytes) -> Size:
    return solve(formats.parse(len(data)), data).size


LANDSCAPE, PORTRAIT = picture(60, 40), picture(40, 60)
NEARLY = picture(60, 41)
"""30,21 where the landscape gives 30,20; but 15,10 as well."""


@dataclass
class RecordingDecoder:
    """Draws flat pictures of the right sizes that name their master, and remembers what it was asked for."""

    asked: list[tuple[Piece, tuple[Job, ...]]] = field(default_factory=list)

    async def __call__(self, piece: Piece, jobs: Sequence[Job]) -> list[Rendered]:
        self.asked.append((piece, tuple(jobs)))
        origin = digest(piece.data)
        return [
            Rendered(picture(job.size.width, job.size.height, origin=origin, kind=job.format), 2.0, 1.0) for job in jobs
        ]


@dataclass
class Bench:
    """Masters, a store and a decoder, with makers for any policy."""

    masters: MemorySource
    thumbs: MemorySource = field(default_factory=lambda: MemorySource(root="memory://thumbs/"))
    decoder: RecordingDecoder = field(default_factory=RecordingDecoder)
    templates: KeyTemplates = field(default_factory=KeyTemplates)
    rules: Rules = field(default_factory=Rules)
    consent: Consent = field(default_factory=Consent)

    def generator(
        self, sizes: str = "30,15", limit: int | None = None, formats: str = "jpg", **bounds: Any
    ) -> Generator:
        wanted = policy(sizes, max_unauthorised=limit, formats=formats)
        store = RenditionStore(self.thumbs)
        return Generator(
            self.masters,
            store,
            self.decoder,
            wanted,
            rules=self.rules,
            consent=self.consent,
            templates=self.templates,
            bounds=ReadLimits(**bounds),
            masters_at_once=2,
            pyramid_name=PyramidName(512, 85, 1),
        )

    async def make(self, sizes: str = "30,15", limit: int | None = None, formats: str = "jpg") -> Outcome:
        return await self.generator(sizes, limit, formats).make(InputImage(ID))

    def written(self) -> list[str]:
        """What was written and deleted so far, in order."""
        return [
            f"{'-' if call[0] == 'delete' else ''}{str(call[1]).removeprefix(ID + '/')}"
            for call in self.thumbs.calls
            if call[0] in ("write", "delete")
        ]

    def clear(self) -> None:
        self.masters.calls.clear()
        self.thumbs.calls.clear()
        self.decoder.asked.clear()


@pytest.fixture
def bench() -> Bench:
    return Bench(MemorySource({ID: LANDSCAPE}, root="memory://masters/"))


async def test_layout_of_a_dlcs_is_written_and_committed_last(bench: Bench) -> None:
    outcome = await bench.make()

    assert outcome.result == "made"
    assert outcome.written == 2
    assert bench.written() == ["open/30.jpg", "open/15.jpg", "special.json", "s.json"]
    assert bench.thumbs.objects[f"{ID}/s.json"] == b'{"o":[[30,20],[15,10]],"a":[]}'
    assert size_of(bench.thumbs.objects[f"{ID}/open/30.jpg"]) == Size(30, 20)
    assert bench.masters.verbs("write") == []
    assert bench.masters.verbs("delete") == []


async def test_one_decode_serves_all_sizes(bench: Bench) -> None:
    await bench.make()

    ((piece, jobs),) = bench.decoder.asked
    assert piece.format == "jpeg"
    assert [str(job.size) for job in jobs] == ["30,20", "15,10"]
    assert all(job.box == Box(0, 0, 60, 40) and job.plain and job.format == "jpg" for job in jobs)


async def test_a_master_that_ends_early_is_made_unless_that_is_forbidden(bench: Bench) -> None:
    bench.masters.objects[ID] = LANDSCAPE.removesuffix(b"\xff\xd9")
    with pytest.raises(Malformed, match="the JPEG has no end"):
        await bench.generator(strict=True).make(InputImage(ID))
    assert bench.written() == []
    assert (await bench.make()).result == "made"


async def test_few_masters_are_in_memory_however_many_are_under_way(bench: Bench) -> None:
    names = [f"{number}.jpg" for number in range(9)]
    bench.masters.objects |= dict.fromkeys(names, LANDSCAPE)
    held, most = set[int](), 0

    class Slowly(RecordingDecoder):
        async def __call__(self, piece: Piece, jobs: Sequence[Job]) -> list[Rendered]:
            nonlocal most
            held.add(id(jobs))
            most = max(most, len(held))
            await asyncio.sleep(0)
            held.discard(id(jobs))
            return await super().__call__(piece, jobs)

    bench.decoder = Slowly()
    generator = bench.generator()
    outcomes = await asyncio.gather(*(generator.make(InputImage(name)) for name in names))

    assert {outcome.result for outcome in outcomes} == {"made"}
    assert most == 2


async def test_no_byte_of_the_master_is_read_twice(bench: Bench) -> None:
    """Its head, which is all of a small master; of a larger one then the rest."""
    await bench.make()
    assert bench.masters.calls[1:] == [("read", ID, (Span(0, len(LANDSCAPE)),))]

    long = LANDSCAPE + bytes(100_000)
    bench.masters.objects["long"] = long
    bench.clear()
    await bench.generator().make(InputImage("long"))

    assert bench.masters.calls[1:] == [("read", "long", (Span(0, 65536),)), ("read", "long", (Span(65536, len(long)),))]
    assert bench.decoder.asked[0][0].data == long


async def test_sidecar_tells_a_server_all_it_needs(bench: Bench) -> None:
    await bench.make(limit=20)

    kept = await RenditionStore(bench.thumbs).find(ID)
    assert kept is not None
    assert kept.sidecar is not None
    assert kept.sidecar.layout is not None
    assert kept.sidecar.blob("memory://masters/") == bench.masters.blob(ID)
    assert formats.load(kept.sidecar.layout).size == kept.sidecar.shape == Size(60, 40)
    assert kept.rule.max_unauthorised == 20


async def test_what_stands_costs_two_reads_of_the_store_and_none_of_the_master(bench: Bench) -> None:
    await bench.make()
    bench.clear()
    listed = InputImage(ID, bench.masters.blob(ID))

    assert (await bench.generator().make(listed)).result == "stood"
    assert bench.masters.calls == []
    assert sorted(bench.thumbs.calls) == [("open", f"{ID}/s.json"), ("open", f"{ID}/special.json")]

    assert (await bench.make()).result == "stood"
    assert bench.masters.calls == [("stat", ID)]


async def test_webp_beside_jpg_is_made_from_the_same_decode(bench: Bench) -> None:
    await bench.make(formats="jpg,webp")

    ((_, jobs),) = bench.decoder.asked
    assert [f"{job.size} {job.format}" for job in jobs] == ["30,20 jpg", "30,20 webp", "15,10 jpg", "15,10 webp"]
    files = ["open/30.jpg", "open/30.webp", "open/15.jpg", "open/15.webp"]
    assert bench.written() == [*files, "special.json", "s.json"]
    assert bench.thumbs.objects[f"{ID}/s.json"] == b'{"o":[[30,20],[15,10]],"a":[],"formats":["jpg","webp"]}'


async def test_webp_in_place_of_jpg_leaves_the_jpgs_to_prune(bench: Bench) -> None:
    await bench.make()
    bench.clear()
    generator = bench.generator(formats="webp")

    outcome = await generator.pruning(generator.make)(InputImage(ID))

    assert outcome.detail.endswith("2 stray files removed")
    files = ["open/30.webp", "open/15.webp", "special.json", "s.json", "special.json"]
    assert bench.written() == [*files, "-open/15.jpg", "-open/30.jpg"]
    assert bench.thumbs.objects[f"{ID}/s.json"] == b'{"o":[[30,20],[15,10]],"a":[],"formats":["webp"]}'


async def test_tightening_commits_before_files_leave_the_open(bench: Bench) -> None:
    await bench.make()
    bench.clear()

    outcome = await bench.make(limit=20)

    assert outcome.result == "made"
    assert bench.written() == ["auth/30.jpg", "special.json", "s.json", "-open/30.jpg", "special.json"]
    assert bench.thumbs.objects[f"{ID}/s.json"] == b'{"o":[[15,10]],"a":[[30,20]]}'
    assert bench.decoder.asked == []
    assert bench.masters.calls == [("stat", ID)]
    assert (await bench.make(limit=20)).result == "stood"


async def test_files_of_an_unfinished_run_do_not_stay_open(bench: Bench) -> None:
    """A run for an open policy is killed before its commit; the next one restricts."""
    bench.thumbs.objects[f"{ID}/open/50.jpg"] = picture(50, 33)

    await bench.make(limit=20)

    assert f"{ID}/open/50.jpg" not in bench.thumbs.objects


async def test_moved_file_that_is_gone_is_made_again(bench: Bench) -> None:
    await bench.make()
    del bench.thumbs.objects[f"{ID}/open/30.jpg"]

    assert (await bench.make(limit=0)).result == "made"
    assert size_of(bench.thumbs.objects[f"{ID}/auth/30.jpg"]) == Size(30, 20)


async def test_only_the_missing_size_is_made(bench: Bench) -> None:
    await bench.make()
    bench.clear()

    await bench.make("45,30,15")

    ((_, jobs),) = bench.decoder.asked
    assert [str(job.size) for job in jobs] == ["45,30"]
    assert bench.written() == ["open/45.jpg", "special.json", "s.json", "special.json"]


async def test_new_version_of_the_master_is_made_again(bench: Bench) -> None:
    await bench.make()
    bench.masters.objects[ID] = PORTRAIT
    bench.clear()

    assert (await bench.make()).result == "made"
    withdrawn, files = ["special.json", "s.json"], ["open/30.jpg", "open/15.jpg"]
    assert bench.written() == [*withdrawn, *files, "special.json", "s.json", "special.json"]
    assert bench.thumbs.objects[f"{ID}/s.json"] == b'{"o":[[20,30],[10,15]],"a":[]}'


async def test_master_that_changes_under_our_hands_is_taken_as_it_is_then(bench: Bench) -> None:
    before = bench.masters.blob(ID)
    bench.masters.objects[ID] = PORTRAIT

    assert (await bench.generator().make(InputImage(ID, before))).result == "made"
    assert bench.thumbs.objects[f"{ID}/s.json"] == b'{"o":[[20,30],[10,15]],"a":[]}'


async def test_remake_believes_nothing(bench: Bench) -> None:
    bench.thumbs.objects[f"{ID}/s.json"] = b"no JSON"
    with pytest.raises(Malformed, match="--force"):
        await bench.make()

    assert (await bench.generator().remake(InputImage(ID))).result == "made"
    bench.clear()
    assert (await bench.generator().remake(InputImage(ID))).result == "made"
    assert len(bench.decoder.asked) == 1


@pytest.mark.parametrize(
    ("identifier", "data", "bounds", "error"),
    [
        pytest.param("nobody", b"", {}, Missing, id="no master"),
        pytest.param("empty", b"", {}, Malformed, id="an empty master"),
        pytest.param("text", b"not an image, but many words", {}, Unsupported, id="no image"),
        pytest.param("big", LANDSCAPE, {"max_whole_bytes": 100}, TooExpensive, id="too many bytes"),
        pytest.param("huge", LANDSCAPE, {"max_pixels": 100}, TooExpensive, id="too many pixels"),
    ],
)
async def test_master_that_cannot_be_used_writes_nothing(
    bench: Bench, identifier: str, data: bytes, bounds: dict[str, int], error: type[Exception]
) -> None:
    if identifier != "nobody":
        bench.masters.objects[identifier] = data

    with pytest.raises(error):
        await bench.generator(**bounds).make(InputImage(identifier))
    assert bench.thumbs.objects == {}


@pytest.mark.parametrize(
    ("harm", "limit", "sign"),
    [
        pytest.param(lambda thumbs: None, None, "", id="sound"),
        pytest.param(lambda thumbs: None, 20, "1 renditions to their other folder", id="another policy"),
        pytest.param(lambda thumbs: thumbs.clear(), None, "nothing is stored", id="nothing stored"),
        pytest.param(lambda thumbs: thumbs.pop(f"{ID}/special.json"), None, "no side-car", id="no side-car"),
        pytest.param(lambda thumbs: thumbs.pop(f"{ID}/open/30.jpg"), None, "open/30.jpg is missing", id="no file"),
        pytest.param(
            lambda thumbs: thumbs.update({f"{ID}/open/30.jpg": LANDSCAPE}),
            None,
            "open/30.jpg has 60,40, not 30,20",
            id="a file of another size",
        ),
        pytest.param(
            lambda thumbs: thumbs.update({f"{ID}/open/15.jpg": b""}), None, "15.jpg is no picture", id="an empty file"
        ),
    ],
)
async def test_verify_says_what_is_wrong(bench: Bench, harm: object, limit: int | None, sign: str) -> None:
    await bench.make()
    harm(bench.thumbs.objects)  # type: ignore[operator]
    bench.clear()

    outcome = await bench.generator(limit=limit).verify(InputImage(ID))

    assert outcome.result == ("wrong" if sign else "sound")
    assert sign in outcome.detail
    assert bench.written() == []


async def test_verify_finds_what_is_restricted_in_the_open(bench: Bench) -> None:
    await bench.make(limit=20)
    bench.thumbs.objects[f"{ID}/open/21.jpg"] = b"x"

    outcome = await bench.generator(limit=20).verify(InputImage(ID))

    assert outcome.detail == f"{ID}/open/21.jpg is restricted and under open/"


async def test_estimate_says_what_make_would_do(bench: Bench) -> None:
    assert (await bench.generator().estimate(InputImage(ID))).detail == "nothing is stored"
    await bench.make()
    bench.clear()

    assert (await bench.generator().estimate(InputImage(ID))).result == "stood"
    due = await bench.generator("45,30", 20).estimate(InputImage(ID))
    assert due.result == "due"
    assert due.detail == (
        "1 renditions from the master, 1 renditions to their other folder, sizes file and side-car, clear `open/`"
    )
    assert bench.written() == []
    assert bench.masters.verbs("read") == []


async def test_prune_takes_only_its_own_strays(bench: Bench) -> None:
    strays = [f"{ID}/{name}" for name in ("open/45.jpg", "auth/30.jpg", "authed/30.jpg")]
    foreign = [f"{ID}/{name}" for name in ("open/cover.jpg", "full/30,20/0/default.jpg", "info.json", "open/30.png")]
    foreign += ["leaf.jpg2/open/45.jpg", "other/open/45.jpg"]
    bench.thumbs.objects |= dict.fromkeys(strays + foreign, b"x")
    generator = bench.generator()

    outcome = await generator.pruning(generator.make)(InputImage(ID))

    assert outcome.detail.endswith("3 stray files removed")
    assert not set(strays) & set(bench.thumbs.objects)
    assert set(foreign) <= set(bench.thumbs.objects)
    assert (await generator.verify(InputImage(ID))).result == "sound"
    assert (await generator.pruning(generator.make)(InputImage(ID))).result == "stood"


async def test_remove_takes_the_sizes_file_first_and_the_sidecar_last(bench: Bench) -> None:
    await bench.make()
    bench.clear()

    outcome = await bench.generator().remove(InputImage(ID))

    assert outcome.result == "removed"
    assert bench.written() == ["-s.json", "-sizes.json", "-open/15.jpg", "-open/30.jpg", "-special.json"]
    assert bench.thumbs.objects == {}


async def test_restricted_image_whose_master_comes_back_is_restricted(bench: Bench) -> None:
    await bench.make(limit=20)
    bench.clear()

    assert (await bench.generator().remove(InputImage(ID))).result == "removed"
    assert bench.written() == ["-s.json", "-sizes.json", "-open/15.jpg", "-auth/30.jpg", "special.json"]
    assert names(bench) == {"special.json"}
    stored = await RenditionStore(bench.thumbs).find(ID)
    assert stored is not None
    assert (stored.rule, stored.renditions, stored.foreign) == (Rule(20), (), False)

    assert (await bench.make()).access == "held"
    assert bench.thumbs.objects[f"{ID}/s.json"] == b'{"o":[[15,10]],"a":[[30,20]]}'
    assert (await bench.make()).result == "stood"


async def test_migrate_copies_what_an_older_site_left(bench: Bench) -> None:
    legacy = {f"{ID}/full/{size}/0/default.jpg": picture(*map(int, size.split(","))) for size in ("30,20", "15,10")}
    other = {f"{ID}/full/30,/0/default.jpg": b"x", f"{ID}/full/30,20/90/default.jpg": b"x", f"{ID}/info.json": b"x"}
    bench.thumbs.objects |= legacy | other
    generator = bench.generator(limit=20)

    outcome = await generator.migrate(InputImage(ID))

    assert (outcome.result, outcome.written) == ("made", 2)
    assert bench.written() == ["auth/30.jpg", "open/15.jpg", "s.json"]
    assert bench.thumbs.objects[f"{ID}/s.json"] == b'{"o":[[15,10]],"a":[[30,20]]}'
    assert bench.thumbs.objects[f"{ID}/auth/30.jpg"] == legacy[f"{ID}/full/30,20/0/default.jpg"]
    assert legacy.items() | other.items() <= bench.thumbs.objects.items()
    assert bench.masters.calls == []
    assert (await generator.migrate(InputImage(ID))).result == "stood"
    assert (await generator.migrate(InputImage("new"))).detail == "there are no legacy files"


# What stands restricted, and what belongs to others


def dlcs_s_own(bench: Bench) -> dict[str, bytes]:
    """An image that a DLCS restricts, with no side-car."""
    bench.thumbs.objects |= {f"{ID}/s.json": b'{"o":[],"a":[[30,20],[15,10]]}'}
    bench.thumbs.objects |= {f"{ID}/auth/{side}.jpg": picture(side, side * 2 // 3) for side in (30, 15)}
    return dict(bench.thumbs.objects)


def rules(identifiers: str, limit: int) -> Rules:
    """What `--config` with one table `[[rules]]` gives a run."""
    table = {"identifiers": identifiers, "max_unauthorised": limit}
    return resource_options_of(settings.load(source=".", rules=[table]), Consent()).rules


def names(bench: Bench) -> set[str]:
    return {key.removeprefix(f"{ID}/") for key in bench.thumbs.objects}


@pytest.mark.parametrize("work", ["make", "remake", "estimate", "remove", "prune", "queue"])
@pytest.mark.parametrize("opening", [False, True])
async def test_sizes_file_of_others_is_left_alone(bench: Bench, work: str, opening: bool) -> None:
    bench.consent = Consent(open_restricted=opening)
    bench.thumbs.objects[f"{ID}/open/99.jpg"] = b"a stray, perhaps theirs"
    before = dlcs_s_own(bench)
    generator = bench.generator()
    works = {
        "make": generator.make,
        "remake": generator.remake,
        "estimate": generator.estimate,
        "remove": generator.remove,
        "prune": generator.pruning(generator.make),
        "queue": partial(generator.follow, gone=generator.remove),
    }

    outcome = await works[work](InputImage(ID))

    assert (outcome.result, outcome.access) == ("foreign", "")
    assert "--adopt" in outcome.detail
    assert bench.thumbs.objects == before
    assert bench.written() == []
    assert bench.decoder.asked == []


@pytest.mark.parametrize("work", ["make", "remake"])
async def test_adopted_image_stays_restricted(bench: Bench, work: str) -> None:
    dlcs_s_own(bench)
    bench.consent = Consent(adopt=True)
    generator = bench.generator("25,10")

    outcome = await getattr(generator, work)(InputImage(ID))

    assert (outcome.result, outcome.access) == ("made", "held")
    assert bench.thumbs.objects[f"{ID}/s.json"] == b'{"o":[],"a":[[25,17],[10,7]]}'
    assert {name for name in names(bench) if name.startswith("open/")} == set()
    bench.consent = Consent()
    assert (await bench.generator("25,10").make(InputImage(ID))).result == "stood"


@pytest.mark.parametrize("work", ["make", "remake"])
async def test_opening_needs_to_be_said(bench: Bench, work: str) -> None:
    await bench.make(limit=0)

    outcome = await getattr(bench.generator(), work)(InputImage(ID))
    assert (outcome.result, outcome.access) == ("stood" if work == "make" else "made", "held")
    assert bench.thumbs.objects[f"{ID}/s.json"] == b'{"o":[],"a":[[30,20],[15,10]]}'
    assert {name for name in names(bench) if name.startswith("open/")} == set()

    bench.consent = Consent(open_restricted=True)
    assert (await bench.generator().estimate(InputImage(ID))).access == "opened"
    outcome = await getattr(bench.generator(), work)(InputImage(ID))
    assert (outcome.result, outcome.access) == ("made", "opened")
    assert bench.thumbs.objects[f"{ID}/s.json"] == b'{"o":[[30,20],[15,10]],"a":[]}'


async def test_unreadable_sizes_file_may_restrict_everything(bench: Bench) -> None:
    bench.thumbs.objects[f"{ID}/s.json"] = b"no JSON"

    await bench.generator().remake(InputImage(ID))

    assert bench.thumbs.objects[f"{ID}/s.json"] == b'{"o":[],"a":[[30,20],[15,10]]}'


@pytest.mark.parametrize(
    ("pattern", "limit", "expected"),
    [
        pytest.param(ID, 0, b'{"o":[],"a":[[30,20],[15,10]]}', id="by its identifier"),
        pytest.param(ID, 20, b'{"o":[[15,10]],"a":[[30,20]]}', id="up to a limit"),
        pytest.param(f"in/{ID}", 0, b'{"o":[],"a":[[30,20],[15,10]]}', id="by a key that is no object"),
        pytest.param("other", 0, b'{"o":[[30,20],[15,10]],"a":[]}', id="of another image"),
    ],
)
@pytest.mark.parametrize("opening", [False, True])
async def test_rules_restrict_what_is_made(
    bench: Bench, pattern: str, limit: int, expected: bytes, opening: bool
) -> None:
    bench.templates = KeyTemplates(("in/{id}", "{id}"))
    bench.consent = Consent(open_restricted=opening)
    bench.rules = rules(pattern, limit)

    await bench.make()

    assert bench.thumbs.objects[f"{ID}/s.json"] == expected
    assert (await bench.make()).result == "stood"


async def test_rules_restrict_what_is_migrated(bench: Bench) -> None:
    bench.thumbs.objects[f"{ID}/full/30,20/0/default.jpg"] = picture(30, 20)
    bench.rules = rules(ID, 0)

    await bench.generator().migrate(InputImage(ID))

    assert bench.thumbs.objects[f"{ID}/s.json"] == b'{"o":[],"a":[[30,20]]}'


async def test_rule_that_is_new_closes(bench: Bench) -> None:
    await bench.make()
    bench.rules = rules(ID, 20)

    assert (await bench.generator().estimate(InputImage(ID))).access == "closed"
    assert (await bench.generator().make(InputImage(ID))).access == "closed"
    assert {name for name in names(bench) if name.startswith("open/")} == {"open/15.jpg"}


async def test_server_that_died_while_it_added_one_is_no_other(bench: Bench) -> None:
    await bench.make("15")
    before = bench.thumbs.objects[f"{ID}/s.json"]
    await bench.make("30,15")
    bench.thumbs.objects[f"{ID}/s.json"] = before

    assert (await bench.make("30,15")).result == "made"


async def test_size_that_others_take_away_makes_the_file_theirs(bench: Bench) -> None:
    await bench.make("45,30,15")
    bench.thumbs.objects[f"{ID}/s.json"] = b'{"o":[[15,10]],"a":[]}'

    assert (await bench.make("45,30,15")).result == "foreign"


# Events: what is done is decided by what is there by then


@dataclass
class Meddler(RecordingDecoder):
    """Somebody who changes the masters while pictures are drawn."""

    meddle: list[Callable[[], None]] = field(default_factory=list)

    async def __call__(self, piece: Piece, jobs: Sequence[Job]) -> list[Rendered]:
        drawn = await super().__call__(piece, jobs)
        if self.meddle:
            self.meddle.pop(0)()
        return drawn


async def test_follow_makes_what_the_master_is_at_the_end(bench: Bench) -> None:
    bench.decoder = Meddler(meddle=[lambda: bench.masters.objects.update({ID: PORTRAIT})])
    generator = bench.generator()

    assert (await generator.follow(InputImage(ID), gone=generator.remove)).result == "made"
    await check_readable(bench.thumbs, loosest=None)
    await check_made_from(bench.thumbs, PORTRAIT)
    assert (await generator.follow(InputImage(ID), gone=generator.remove)).result == "stood"
    assert len(bench.decoder.asked) == 2


async def test_follow_removes_what_lost_its_master_meanwhile(bench: Bench) -> None:
    bench.decoder = Meddler(meddle=[bench.masters.objects.clear])
    generator = bench.generator()

    assert (await generator.follow(InputImage(ID), gone=generator.remove)).result == "removed"
    assert bench.thumbs.objects == {}


async def test_follow_makes_what_came_back_while_it_was_removed(bench: Bench) -> None:
    await bench.make()
    bench.masters.objects.clear()
    generator = bench.generator()

    async def gone(image: InputImage) -> Outcome:
        outcome = await generator.remove(image)
        bench.masters.objects[ID] = PORTRAIT
        return outcome

    assert (await generator.follow(InputImage(ID), gone=gone)).result == "made"
    await check_made_from(bench.thumbs, PORTRAIT)


async def test_follow_may_keep_what_lost_its_master(bench: Bench) -> None:
    await bench.make()
    before = dict(bench.thumbs.objects)
    bench.masters.objects.clear()
    generator = bench.generator()

    assert (await generator.follow(InputImage(ID), gone=generator.retain)).result == "stood"
    assert bench.thumbs.objects == before


# Kills: a run that ends before its n-th change, for every n, between any two policies and versions


class Killed(BaseException):
    """Nothing in the code under test catches it, as nothing catches SIGKILL."""


@dataclass
class MortalSource(MemorySource):
    """Dies before the n-th write or deletion."""

    lives: int = 10**9

    def _spend(self) -> None:
        if not self.lives:
            raise Killed
        self.lives -= 1

    async def write(self, key: str, data: bytes, *, media: str | None = None, pin: Blob | Absent | None = None) -> Blob:
        self._spend()
        return await super().write(key, data, media=media, pin=pin)

    async def delete(self, key: str) -> None:
        self._spend()
        await super().delete(key)


STATES = {
    "open": (LANDSCAPE, "30,15", None, "jpg"),
    "restricted": (LANDSCAPE, "30,15", 0, "jpg"),
    "partly": (LANDSCAPE, "30,15", 20, "jpg"),
    "partly, webp": (LANDSCAPE, "30,15", 20, "webp"),
    "other sizes": (LANDSCAPE, "45,30", None, "jpg"),
    "nearly": (NEARLY, "30,15", None, "jpg"),
    "portrait": (PORTRAIT, "30,15", None, "jpg"),
    "portrait, partly": (PORTRAIT, "30,15", 20, "jpg"),
    "portrait, restricted, both": (PORTRAIT, "45,30", 0, "jpg,webp"),
}


async def check_readable(thumbs: MemorySource, *, loosest: int | None) -> None:
    """What holds at any moment: every file that is named is there and of its size, and no rule is too loose."""
    kept = await RenditionStore(thumbs).reload(ID)
    if kept is None:
        return
    for rendition in kept.renditions:
        assert rendition.key in thumbs.objects, f"{rendition.key} is named and missing"
        assert size_of(thumbs.objects[rendition.key]) == rendition.size
    if loosest is not None:
        assert kept.rule.max_unauthorised is not None
        assert kept.rule.max_unauthorised <= loosest
    if kept.sidecar and kept.sidecar.settled and kept.sidecar.max_unauthorised is not None:
        # What nobody will sweep any more does not lie in the open.
        sides = [side for _, side in await RenditionStore(thumbs).list_files(ID, "open")]
        assert all(side <= kept.sidecar.max_unauthorised for side in sides)


async def check_made_from(thumbs: MemorySource, master: bytes) -> None:
    kept = await RenditionStore(thumbs).reload(ID)
    assert kept is not None
    for rendition in kept.renditions:
        assert digest(master).encode() in thumbs.objects[rendition.key], f"{rendition.key} is of an older master"


@pytest.mark.parametrize("foreign", [pytest.param(False, id="ours"), pytest.param(True, id="theirs")])
@pytest.mark.parametrize("after", STATES)
@pytest.mark.parametrize("before", ["nothing", *STATES])
async def test_kill_at_any_step_leaves_what_readers_may_see(before: str, after: str, foreign: bool) -> None:
    loosest: int | None = 0
    start: dict[str, bytes] = {}
    if before != "nothing":
        master, sizes, limit, stored_as = STATES[before]
        bench = Bench(MemorySource({ID: master}))
        await bench.make(sizes, limit, stored_as)
        start = dict(bench.thumbs.objects)
        loosest = limit
        if foreign:
            del start[f"{ID}/special.json"]
            # All that another's sizes file tells of its rule.
            kept = await RenditionStore(MemorySource(start)).reload(ID)
            assert kept is not None
            loosest = kept.rule.max_unauthorised
    master, sizes, limit, stored_as = STATES[after]
    loosest = None if loosest is None or limit is None else max(loosest, limit)

    done, deaths = False, 0
    while not done:
        thumbs = MortalSource(dict(start), lives=deaths)
        bench = Bench(MemorySource({ID: master}), thumbs, consent=ALL)
        try:
            await bench.make(sizes, limit, stored_as)
            done = True
        except Killed:
            deaths += 1
        await check_readable(thumbs, loosest=loosest)
        thumbs.lives = 10**9
        await bench.make(sizes, limit, stored_as)
        await check_readable(thumbs, loosest=limit)
        assert (await bench.generator(sizes, limit, stored_as).verify(InputImage(ID))).result == "sound"
        await check_made_from(thumbs, master)
        bench.clear()
        assert (await bench.make(sizes, limit, stored_as)).result == "stood"
        assert bench.written() == []

    assert deaths >= (0 if before == after and not foreign else 1)


async def test_sizes_file_of_a_finished_run_is_the_policys(bench: Bench) -> None:
    bench.consent = ALL
    for master, sizes, limit, stored_as in STATES.values():
        bench.masters.objects[ID] = master
        await bench.make(sizes, limit, stored_as)
        kept = await RenditionStore(bench.thumbs).reload(ID)
        assert kept is not None
        shape = size_of(master)
        assert SizesFile.of(kept.renditions) == policy(sizes, max_unauthorised=limit, formats=stored_as).sizes(shape)
        assert kept.rule.max_unauthorised == limit


async def test_changed_twice_is_given_up(bench: Bench) -> None:
    class Restless(MemorySource):
        async def read(self, blob: Blob, spans: Sequence[Span]) -> list[bytes]:
            raise Changed("it never rests")

    bench.masters = Restless(bench.masters.objects)
    with pytest.raises(Changed):
        await bench.make()
    assert bench.thumbs.objects == {}


def pages(*pictures: Size) -> bytes:
    """A TIFF of flat pages of these sizes."""
    first, *others = [Image.new("RGB", (it.width, it.height), "teal") for it in pictures]
    file = io.BytesIO()
    first.save(file, "TIFF", save_all=True, append_images=others)
    return file.getvalue()


async def test_sizes_of_a_page_are_of_that_page() -> None:
    bench = Bench(MemorySource({"leaf.tif": pages(Size(60, 40), Size(40, 60))}))
    page = InputImage("leaf.tif;2")
    assert (await bench.generator().make(page)).result == "made"
    assert size_of(bench.thumbs.objects["leaf.tif;2/open/30.jpg"]) == Size(20, 30)
    assert (await bench.generator().make(page)).result == "stood"
    assert (await bench.generator().verify(page)).result == "sound"
    assert not any(key.startswith("leaf.tif/") for key in bench.thumbs.objects)


async def test_a_page_is_stored_as_restricted_as_its_image() -> None:
    sizes = SizesFile(auth=(Size(60, 40),)).dump()
    bench = Bench(MemorySource({"leaf.tif": pages(Size(60, 40), Size(60, 40))}))
    bench.thumbs.objects["leaf.tif/s.json"] = sizes
    await bench.generator().make(InputImage("leaf.tif;2"))
    assert [key for key in bench.thumbs.objects if "/open/" in key] == []
    assert {"leaf.tif;2/auth/30.jpg", "leaf.tif;2/auth/15.jpg"} <= bench.thumbs.objects.keys()


async def test_pages_of_an_image_whose_master_is_gone_go_too() -> None:
    bench = Bench(MemorySource({"leaf.tif": pages(Size(60, 40), Size(60, 40)), "leaf.tif;x": pages(Size(60, 40))}))
    for name in ("leaf.tif", "leaf.tif;2", "leaf.tif;x"):
        await bench.generator().make(InputImage(name))
    assert (await bench.generator().remove(InputImage("leaf.tif;2"))).result == "removed"
    assert {key.partition("/")[0] for key in bench.thumbs.objects} == {"leaf.tif", "leaf.tif;x"}
    await bench.generator().make(InputImage("leaf.tif;2"))
    assert (await bench.generator().remove(InputImage("leaf.tif"))).result == "removed"
    assert {key.partition("/")[0] for key in bench.thumbs.objects} == {"leaf.tif;x"}
