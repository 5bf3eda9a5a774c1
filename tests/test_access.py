import pytest

from special import access
from special.access import NOBODY, Grant, Identity
from special.asset import OPEN, Asset, Rule
from special.errors import Forbidden, Unauthorised
from special.geometry import Box, Size
from special.iiif import Job

SIZE = Size(1000, 800)
READER = Identity(frozenset({"reader"}), known=True)
STRANGER = Identity(frozenset({"other"}), known=True)


def asset(rule: Rule) -> Asset:
    return Asset("x", SIZE, None, rule=rule)


def job(box: Box, size: Size) -> Job:
    return Job(box, size, False, 0, "default", "jpg")


@pytest.mark.parametrize(
    ("rule", "identity", "max_side"),
    [
        pytest.param(OPEN, NOBODY, None, id="open to all"),
        pytest.param(Rule(0), NOBODY, 0, id="closed to nobody"),
        pytest.param(Rule(400), NOBODY, 400, id="small is open"),
        pytest.param(Rule(-1), NOBODY, 0, id="a negative number never opens"),
        pytest.param(Rule(400, frozenset({"reader"})), READER, None, id="the role lifts it"),
        pytest.param(Rule(400, frozenset({"reader"})), STRANGER, 400, id="another role does not"),
    ],
)
def test_grants(rule: Rule, identity: Identity, max_side: int | None) -> None:
    assert access.grant(asset(rule), identity) == Grant(max_side, identity.known)


@pytest.mark.parametrize(
    ("box", "size", "grant", "refusal"),
    [
        pytest.param(Box.whole(SIZE), SIZE, Grant(None), None, id="unlimited"),
        pytest.param(Box.whole(SIZE), Size(400, 320), Grant(400), None, id="full region, granted size"),
        pytest.param(Box.whole(SIZE), Size(401, 321), Grant(400), Unauthorised, id="a pixel too large"),
        pytest.param(Box.whole(SIZE), Size(321, 401), Grant(400), Unauthorised, id="the other side counts too"),
        pytest.param(Box(0, 0, 10, 10), Size(10, 10), Grant(400), Unauthorised, id="a small crop is not small"),
        pytest.param(Box.whole(SIZE), Size(1, 1), Grant(0), Unauthorised, id="nothing"),
        pytest.param(Box(0, 0, 10, 10), Size(10, 10), Grant(400, known=True), Forbidden, id="known, not enough"),
    ],
)
def test_checks(box: Box, size: Size, grant: Grant, refusal: type[Exception] | None) -> None:
    if refusal is None:
        access.check(job(box, size), asset(OPEN), grant)
    else:
        with pytest.raises(refusal):
            access.check(job(box, size), asset(OPEN), grant)
