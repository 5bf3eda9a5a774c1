import pytest

from special import composition
from special.auth import access
from special.auth.access import ANONYMOUS, Grant, Identity, Rules
from special.errors import Forbidden, Unauthorised
from special.geometry import Box, Size
from special.iiif import Job
from special.images.asset import Asset
from special.images.rule import OPEN, Rule
from special.settings import AccessRule, Settings

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
        pytest.param(OPEN, ANONYMOUS, None, id="open to all"),
        pytest.param(Rule(0), ANONYMOUS, 0, id="closed to nobody"),
        pytest.param(Rule(400), ANONYMOUS, 400, id="small is open"),
        pytest.param(Rule(-1), ANONYMOUS, 0, id="a negative number never opens"),
        pytest.param(Rule(400, frozenset({"reader"})), READER, None, id="the role lifts it"),
        pytest.param(Rule(400, frozenset({"reader"})), STRANGER, 400, id="another role does not"),
    ],
)
def test_grants(rule: Rule, identity: Identity, max_side: int | None) -> None:
    assert access.grant(asset(rule), identity) == Grant(max_side, identity.known)


def rules(**of: tuple[int, ...] | tuple[int, tuple[str, ...]]) -> Rules:
    """Rules by pattern, in which `_` stands for `*`: a limit and roles."""
    tables = [
        AccessRule(identifiers=pattern.replace("_", "*"), max_unauthorised=it[0], roles=it[1] if it[1:] else ())
        for pattern, it in of.items()
    ]
    return composition.rules(Settings(source="x", rules=tuple(tables)))


def roles(*names: str) -> frozenset[str]:
    return frozenset(names)


@pytest.mark.parametrize(
    ("rules", "stored", "names", "rule"),
    [
        pytest.param(rules(), OPEN, ["a"], OPEN, id="nobody says anything"),
        pytest.param(rules(), Rule(200), ["a"], Rule(200, roles("reader")), id="the sizes file alone"),
        pytest.param(rules(a_=(0,)), OPEN, ["a/b"], Rule(0), id="the settings alone, and nobody may"),
        pytest.param(rules(a_=(0,)), OPEN, ["b/a"], OPEN, id="another identifier"),
        pytest.param(rules(a=(0,)), OPEN, ["a/b"], OPEN, id="a pattern is the whole identifier"),
        pytest.param(rules(a=(-1,), _=(0,)), OPEN, ["a"], OPEN, id="the first that matches"),
        pytest.param(rules(_=(0,), a=(-1,)), OPEN, ["a"], Rule(0), id="the first that matches, again"),
        pytest.param(rules(_=(100, ("x",))), Rule(200), ["a"], Rule(100, roles("x")), id="the settings are stricter"),
        pytest.param(rules(_=(300, ("x",))), Rule(200), ["a"], Rule(200, roles("x")), id="the sizes file is stricter"),
        pytest.param(rules(_=(-1,)), Rule(200), ["a"], Rule(200, roles("reader")), id="open never opens"),
        pytest.param(rules(_=(-1, ("x",))), Rule(200), ["a"], Rule(200, roles("x")), id="open, but it names roles"),
        pytest.param(rules(b=(100, ("x",))), OPEN, ["a", "b"], Rule(100, roles("x")), id="the master's key counts too"),
        pytest.param(
            rules(a=(100, ("x", "y")), b=(50, ("y", "z"))), OPEN, ["a", "b"], Rule(50, roles("y")), id="both names"
        ),
        pytest.param(rules(**{"p/_": (0,)}), OPEN, ["/p//x"], Rule(0), id="an odd spelling"),
        pytest.param(rules(**{"p/_": (0,)}), OPEN, ["x", "/p/.//x"], Rule(0), id="an odd spelling of a key"),
        pytest.param(rules(**{"p//_": (0,)}), OPEN, ["p//x"], Rule(0), id="a rule for an odd key"),
        pytest.param(rules(**{"p//_": (-1,), "p/_": (0,)}), OPEN, ["p//x"], Rule(0), id="odd, and the stricter holds"),
        pytest.param(rules(**{"p/caf\u00e9": (0,)}), OPEN, ["p/cafe\u0301"], Rule(0), id="decomposed"),
        pytest.param(rules(**{"p/cafe\u0301": (0,)}), OPEN, ["p/caf\u00e9"], Rule(0), id="decomposed in the settings"),
    ],
)
def test_the_stricter_rule_holds(rules: Rules, stored: Rule, names: list[str], rule: Rule) -> None:
    assert rules.govern(stored, *names) == rule


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
