"""What must be done for one image, given what is stored."""

from __future__ import annotations

from dataclasses import replace

import pytest

from special.codecs import Encoding
from special.derive.plan import AccessPlan, Consent, Steps, Target, is_left_alone, plan, plan_access
from special.geometry import Size
from special.images.asset import Rendition
from special.images.rule import Rule
from special.renditions import Policy, SizesFile, StoredRenditions
from special.storage.blob import Blob

BLOB = Blob("memory://m/", "leaf.tif", '"1"', 100)
SHAPE = Size(600, 400)
BIG, SMALL = Size(300, 200), Size(150, 100)


def policy(sizes: str, limit: int | None = None, quality: int = 85) -> Policy:
    return Policy.of(sizes, max_unauthorised=limit, formats=["jpg"], qualities=Encoding(jpeg_quality=quality))


def target(limit: int | None = None, *, sizes: str = "300,150", quality: int = 85, blob: Blob = BLOB) -> Target:
    return Target.of("leaf", blob, SHAPE, policy(sizes, limit, quality))


def kept(before: Target, *, settled: bool = True) -> StoredRenditions:
    """What a finished run for another target left behind."""
    return StoredRenditions(before.renditions, Rule(before.max_unauthorised), before.sidecar(b"", settled=settled), "")


def opened(size: Size) -> Rendition:
    return Rendition(size, "open", f"leaf/open/{size.long_side}.jpg")


def closed(size: Size) -> Rendition:
    return Rendition(size, "auth", f"leaf/auth/{size.long_side}.jpg")


NOTHING = Steps(False, None, (), (), publish=False, sweep=False, settle=False)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param(
            None,
            target(),
            Steps(False, None, (opened(BIG), opened(SMALL)), (), True, False, False),
            id="nothing stored",
        ),
        pytest.param(
            None,
            target(150),
            Steps(False, None, (closed(BIG), opened(SMALL)), (), True, True, True),
            id="nothing stored, restricted: what an older run left is cleared",
        ),
        pytest.param(kept(target()), target(), NOTHING, id="it stands"),
        pytest.param(kept(target(150)), target(150), NOTHING, id="it stands, restricted"),
        pytest.param(
            kept(target()),
            target(150),
            Steps(False, None, (), ((opened(BIG), closed(BIG)),), True, True, True),
            id="tightened: moved, not made anew",
        ),
        pytest.param(
            kept(target(150)),
            target(),
            Steps(True, None, (), ((closed(BIG), opened(BIG)),), True, False, True),
            id="loosened: until it is known, the next run clears `open/`",
        ),
        pytest.param(
            kept(target(200)),
            target(150),
            Steps(False, None, (), (), True, True, True),
            id="another limit, the same folders",
        ),
        pytest.param(
            kept(target()),
            target(sizes="300,150,75"),
            Steps(False, None, (opened(Size(75, 50)),), (), True, False, True),
            id="one size more: only that is made",
        ),
        pytest.param(
            kept(target()), target(sizes="150"), Steps(False, None, (), (), True, False, True), id="one size less"
        ),
        pytest.param(
            kept(target()),
            target(quality=60),
            Steps(False, None, (opened(BIG), opened(SMALL)), (), True, False, False),
            id="another quality: all anew",
        ),
        pytest.param(
            kept(target()),
            target(blob=replace(BLOB, etag='"2"')),
            Steps(False, None, (opened(BIG), opened(SMALL)), (), True, False, False),
            id="another master of the same shape: overwritten in place",
        ),
        pytest.param(
            kept(target()),
            target(blob=replace(BLOB, key="leaf.jp2")),
            Steps(False, None, (opened(BIG), opened(SMALL)), (), True, False, False),
            id="another key",
        ),
        pytest.param(
            kept(target()),
            Target.of("leaf", replace(BLOB, etag='"2"'), SHAPE.turned, policy("300,150,75")),
            Steps(
                False,
                SizesFile(),
                tuple(opened(Size(*side)) for side in [(200, 300), (100, 150), (50, 75)]),
                (),
                True,
                False,
                True,
            ),
            id="another shape: the old sizes are withdrawn first",
        ),
        pytest.param(
            kept(target(sizes="300,120")),
            Target.of("leaf", replace(BLOB, etag='"2"'), SHAPE.turned, policy("300,150")),
            Steps(
                False, SizesFile((Size(120, 80),)), (opened(BIG.turned), opened(SMALL.turned)), (), True, False, True
            ),
            id="another shape: a size that nothing overwrites stays till the end",
        ),
        pytest.param(
            kept(target(150), settled=False),
            target(150),
            Steps(False, None, (), (), False, True, True),
            id="killed before its end",
        ),
        pytest.param(
            replace(kept(target()), sidecar=None),
            target(),
            Steps(False, None, (opened(BIG), opened(SMALL)), (), True, False, False),
            id="somebody else's: of an unknown version",
        ),
        pytest.param(
            replace(kept(target()), renditions=(opened(SMALL),)),
            target(),
            Steps(False, None, (opened(BIG), opened(SMALL)), (), True, False, True),
            id="somebody else wrote the sizes file: nothing is believed",
        ),
        pytest.param(
            StoredRenditions((), Rule(), target().sidecar(b"", settled=True), ""),
            target(),
            Steps(False, None, (opened(BIG), opened(SMALL)), (), True, False, False),
            id="killed before the commit",
        ),
    ],
)
def test_plan(before: StoredRenditions | None, after: Target, expected: Steps) -> None:
    steps = plan(before, after)

    assert steps == expected
    assert steps.is_done == (expected == NOTHING)


def standing(limit: int | None, *renditions: Rendition, foreign: bool = False) -> StoredRenditions:
    return StoredRenditions(renditions, Rule(limit), None, "", foreign)


OPENING = Consent(open_restricted=True)


@pytest.mark.parametrize(
    ("stored", "wanted", "consent", "expected"),
    [
        pytest.param(None, None, Consent(), AccessPlan(None, ""), id="nothing stored, all open"),
        pytest.param(None, 0, Consent(), AccessPlan(0, ""), id="nothing stored, a rule or the policy restricts"),
        pytest.param(standing(None), None, Consent(), AccessPlan(None, ""), id="open as before"),
        pytest.param(standing(200), 200, Consent(), AccessPlan(200, ""), id="restricted as before"),
        pytest.param(standing(None), 0, Consent(), AccessPlan(0, "closed"), id="closed"),
        pytest.param(standing(400), 200, Consent(), AccessPlan(200, "closed"), id="closed further"),
        pytest.param(standing(400), 200, OPENING, AccessPlan(200, "closed"), id="closing needs no consent"),
        pytest.param(standing(0), None, Consent(), AccessPlan(0, "held"), id="restricted, a policy of nothing"),
        pytest.param(standing(200), 400, Consent(), AccessPlan(200, "held"), id="restricted, a looser policy"),
        pytest.param(standing(0), None, OPENING, AccessPlan(None, "opened"), id="opened"),
        pytest.param(standing(200), 400, OPENING, AccessPlan(400, "opened"), id="opened further"),
        pytest.param(standing(200), 200, OPENING, AccessPlan(200, ""), id="nothing to open"),
        pytest.param(
            standing(None, closed(BIG)), None, Consent(), AccessPlan(0, "held"), id="an `a` list: nothing open"
        ),
        pytest.param(
            standing(None, closed(BIG), opened(SMALL)),
            None,
            Consent(),
            AccessPlan(150, "held"),
            id="an `a` list: as much as its `o` list",
        ),
        pytest.param(
            standing(200, closed(BIG), opened(SMALL)), 200, Consent(), AccessPlan(200, ""), id="a side-car's own limit"
        ),
        pytest.param(
            standing(0, closed(BIG), foreign=True), None, Consent(adopt=True), AccessPlan(0, "held"), id="adopted: kept"
        ),
    ],
)
def test_access(stored: StoredRenditions | None, wanted: int | None, consent: Consent, expected: AccessPlan) -> None:
    assert plan_access(stored, wanted, consent) == expected


@pytest.mark.parametrize(
    ("stored", "consent", "expected"),
    [
        pytest.param(None, Consent(), False, id="nothing stored"),
        pytest.param(standing(0), Consent(open_restricted=True), False, id="ours"),
        pytest.param(standing(None, foreign=True), Consent(), True, id="of others, open"),
        pytest.param(standing(0, foreign=True), Consent(), True, id="of others, restricted"),
        pytest.param(standing(0, foreign=True), OPENING, True, id="to open is not to adopt"),
        pytest.param(standing(0, foreign=True), Consent(adopt=True), False, id="adopted"),
    ],
)
def test_what_others_wrote_is_left_alone(stored: StoredRenditions | None, consent: Consent, expected: bool) -> None:
    assert is_left_alone(stored, consent) == expected
