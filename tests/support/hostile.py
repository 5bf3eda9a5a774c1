"""Addresses that mean harm: a grammar of them, and what must hold of any address at all."""

from __future__ import annotations

from hypothesis import strategies as st

from special import iiif
from special.errors import RequestError
from special.geometry import Box, Size
from special.iiif import ImageRequest, Limits, Version

IMAGE = Size(3000, 2001)
LIMITS = Limits(max_width=5000, max_area=10_000_000, upscaling=True)
VERSIONS: tuple[Version, ...] = (2, 3)

HEX = "0123456789abcdefABCDEF"
CONTROL = [f"%{code:02x}" for code in (*range(0x20), 0x7F)]
NO_UTF8 = ["%ff", "%c3%28", "%c0%af", "%ed%a0%80", "%f5%80%80%80", "%80", "%e2%82"]
POISONS = [
    "..",
    ".",
    "..%2F..%2Fetc%2Fpasswd",
    "a%2F..%2Fb",
    "a%2f.%2fb",
    "%2e%2e",
    "%2E%2e%2Fx",
    "%2Fa",
    "a%2F",
    "a%2F%2fb",
    "a%2F.%2Fb",
    "a%2F%2e",
    "a%5cb",
    "a\\b",
    "%5C%5Chost%5Cshare",
    "a%0d%0aSet-Cookie:%20x=1",
    "%0aX:y",
    "a%00.jpg",
    "%c2%85",
    "x" * 1025,
    "%c3%a9" * 513,
    *CONTROL,
    *NO_UTF8,
]
"""Identifiers that no image may have."""
NUMBERS = ["99999999999", "1e3", "-1", "+1", "0x10", "１", "١", "1_0", " 1", "", "1.2.3", "NaN", "inf", "9" * 5000]
"""What is no number of this specification, or one that is too long."""

identifiers = st.one_of(
    st.sampled_from(POISONS),
    st.tuples(st.sampled_from(["a", "a%2F", "%C3%A9"]), st.sampled_from([*CONTROL, *NO_UTF8, "%5c"])).map("".join),
)
numbers = st.sampled_from(NUMBERS)
regions = st.one_of(
    st.tuples(numbers, st.just(",0,9,9")).map("".join),
    st.tuples(st.just("0,0,"), numbers, st.just(",9")).map("".join),
    st.tuples(st.just("pct:0,0,"), st.sampled_from(["0", "1e1", "-5", ""]), st.just(",9")).map("".join),
    st.sampled_from(["0,0,0,9", "0,0,9", "0,0,9,9,9", "FULL", "full%00", "square%0d%0a", "full,", "pct:", "*", "%ff"]),
)
sizes = st.one_of(
    st.tuples(numbers, st.just(",9")).map("".join),
    st.tuples(st.just("!"), numbers, st.just(",9")).map("".join).filter(lambda it: it != "!,9"),
    st.sampled_from(
        ["0,", ",0", "0,0", ",", "9", "^", "!9,", "!,9", "pct:0", "pct:-1", "MAX", "^^max", "max%0a", "%80"]
    ),
).filter(lambda it: it != ",9")
rotations = st.one_of(
    numbers.filter(bool), st.sampled_from(["361", "360.1", "!!0", "0!", "!", "90%00", "90%0d%0a", "%C3%28", "-0"])
)
lasts = st.sampled_from(
    ["default", "default.", ".jpg", "default.exe", "DEFAULT.jpg", "default.JPG", "default.jpg%00", "default.jpg%0d%0a",
     "default.jp2", "default.pdf", "native.jpg", "default.jpg.png", "..", "%2e%2e.jpg", "%ff.jpg"]
)  # fmt: skip
GOOD = ("plain.png", "full", "max", "0", "default.jpg")
prefixes = st.sampled_from(["iiif", "iiif/2", "iiif/3", "iiif/v3", "iiif-img", "thumbs"])


@st.composite
def addresses(draw: st.DrawFn) -> str:
    """A request that is good but for one part, or for its shape; never one that an image could answer."""
    parts = list(GOOD)
    which = draw(st.integers(0, 5))
    if which == 5:
        return f"/{draw(prefixes).partition('/')[0]}/" + draw(
            st.sampled_from(["", "/", "//info.json", "a/b/c/info.json", "a/full/max/0", "a/full/max/0/default.jpg/x"])
        )
    if which == 0 and draw(st.booleans()):
        return f"/{draw(prefixes)}/{draw(identifiers)}/info.json"
    parts[which] = draw((identifiers, regions, sizes, rotations, lasts)[which])
    return f"/{draw(prefixes)}/" + "/".join(parts)


def exercise(data: bytes) -> None:
    """Read one address, as both kinds of site and in both versions."""
    path = data.decode("latin-1")
    for segments in (1, 3):
        try:
            request = iiif.parse(path, id_segments=segments)
        except RequestError:
            continue
        quoted = iiif.quote_identifier(request.identifier, id_segments=segments)
        assert iiif.parse_identifier(quoted) == request.identifier
        if isinstance(request, ImageRequest):
            for version in VERSIONS:
                _resolved(request, version)


def _resolved(request: ImageRequest, version: Version) -> None:
    try:
        job = iiif.resolve(request, IMAGE, version=version, limits=LIMITS)
    except RequestError:
        return
    assert job.box.within(IMAGE) == job.box
    assert LIMITS.allow(job.size)
    assert 0 <= job.angle < 360
    assert Box.whole(job.output).size == job.output
    canonical = iiif.canonical(job, IMAGE, version=version, limits=LIMITS, has_color=True)
    again = iiif.parse(f"a/{canonical}")
    assert isinstance(again, ImageRequest)
    once_more = iiif.resolve(again, IMAGE, version=version, limits=LIMITS)
    assert once_more.box == job.box
    assert once_more.size == job.size
    assert iiif.canonical(once_more, IMAGE, version=version, limits=LIMITS, has_color=True) == canonical
