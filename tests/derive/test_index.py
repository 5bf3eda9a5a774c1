"""`derive --index`: side-cars for a bucket whose sizes others have made."""

from __future__ import annotations

import json

import pytest

from special import formats
from special.derive.inputs import InputImage
from special.geometry import Size
from special.images import OPEN, Rule
from special.renditions import RenditionStore
from tests.derive.test_generator import ID, LANDSCAPE, PORTRAIT, Bench, picture
from tests.support.memory import MemorySource

SIZES = b'{"o":[[30,20]],"a":[[60,40]]}'


@pytest.fixture
def bench() -> Bench:
    made = Bench(MemorySource({ID: LANDSCAPE}, root="memory://masters/"))
    files = {"s.json": SIZES, "open/30.jpg": picture(30, 20), "auth/60.jpg": picture(60, 40)}
    made.thumbs.objects.update({f"{ID}/{name}": data for name, data in files.items()})
    return made


async def test_a_sidecar_is_all_that_is_written(bench: Bench) -> None:
    before = dict(bench.thumbs.objects)
    outcome = await bench.generator().index(InputImage(ID))
    assert (outcome.result, bench.written(), bench.decoder.asked) == ("made", ["special.json"], [])
    sidecar = json.loads(bench.thumbs.objects.pop(f"{ID}/special.json"))
    assert bench.thumbs.objects == before
    assert sidecar["sizes"] == {"o": [[30, 20]], "a": [[60, 40]]}
    assert (sidecar["max_unauthorised"], sidecar["master"]["width"], sidecar["master"]["height"]) == (30, 60, 40)


async def test_a_server_then_knows_the_master_and_the_same_rule(bench: Bench) -> None:
    before = await RenditionStore(bench.thumbs).find(ID)
    await bench.generator().index(InputImage(ID))
    after = await RenditionStore(bench.thumbs).find(ID)
    assert before is not None
    assert after is not None
    assert (after.renditions, after.rule) == (before.renditions, before.rule) == (before.renditions, Rule(30))
    assert after.sidecar is not None
    assert after.sidecar.layout is not None
    assert formats.load(after.sidecar.layout).size == Size(60, 40)


async def test_the_sizes_stay_those_of_others(bench: Bench) -> None:
    """Neither `derive` nor `--prune` touches them afterwards, and a second run has nothing to do."""
    generator = bench.generator()
    await generator.index(InputImage(ID))
    before = dict(bench.thumbs.objects)
    bench.clear()
    assert (await generator.index(InputImage(ID))).result == "stood"
    assert (await generator.make(InputImage(ID))).result == "foreign"
    assert (await generator.remake(InputImage(ID))).result == "foreign"
    assert await generator.prune(ID) == 0
    assert bench.thumbs.objects == before
    # Their owner takes one size away, and it is no unfinished run of ours.
    bench.thumbs.objects[f"{ID}/s.json"] = b'{"o":[[30,20]]}'
    assert (await generator.make(InputImage(ID))).result == "foreign"
    found = await RenditionStore(bench.thumbs).find(ID)
    assert found is not None
    assert found.rule == OPEN, "it is theirs to open"
    assert (await generator.index(InputImage(ID))).result == "made"
    found = await RenditionStore(bench.thumbs).find(ID)
    assert found is not None
    assert found.rule == OPEN
    # Without their sizes file there is nothing to say what is open.
    bench.thumbs.objects[f"{ID}/s.json"] = SIZES
    assert (await generator.index(InputImage(ID))).result == "made"
    del bench.thumbs.objects[f"{ID}/s.json"]
    found = await RenditionStore(bench.thumbs).find(ID)
    assert found is not None
    assert (found.rule, found.renditions) == (Rule(30), ())


async def test_another_version_of_the_master_is_indexed_again(bench: Bench) -> None:
    await bench.generator().index(InputImage(ID))
    bench.masters.objects[ID] = PORTRAIT
    assert (await bench.generator().index(InputImage(ID))).result == "made"
    assert json.loads(bench.thumbs.objects[f"{ID}/special.json"])["master"]["width"] == 40


async def test_what_is_ours_and_what_is_not_there_stays(bench: Bench) -> None:
    other = Bench(MemorySource({ID: LANDSCAPE}, root="memory://masters/"))
    assert (await other.generator().index(InputImage(ID))).result == "stood"
    await other.make()
    other.clear()
    assert (await other.generator().index(InputImage(ID))).result == "stood"
    assert other.written() == []
