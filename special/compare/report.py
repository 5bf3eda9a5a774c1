"""The report of a run as one HTML page that needs nothing else: figures, and both pictures for each difference.

Nothing in it comes from the log but the addresses below the prefix.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from html import escape
from io import BytesIO
from typing import Any

from PIL import Image

from special.compare import pixels
from special.compare.differences import DIFFERENCES
from special.compare.servers import Answer, NoAnswer
from special.compare.totals import Example, Totals
from special.geometry import Box

PREVIEW = 420
"""Longest side of a picture in the report."""
MAGNIFIED = 4
"""How much larger the worst place is shown."""
TEXT_CHARACTERS = 1200
"""How much is shown of an answer that is no picture."""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { margin: 2rem auto; max-width: 64rem; padding: 0 1rem }
table { border-collapse: collapse; margin: .5rem 0 1.5rem }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8884; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
figure { margin: 0 0 2rem } figure > div { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem }
figcaption { overflow-wrap: anywhere } img { max-width: 100%; height: auto; background: #8883; display: block }
pre { overflow: auto; max-height: 18rem; background: #8882; padding: .5rem; margin: 0;
  white-space: pre-wrap; overflow-wrap: anywhere }
.worst img { image-rendering: pixelated }
"""


def html(document: Mapping[str, Any], totals: Totals) -> str:
    """The page; `document` is what JSON says of the same run."""
    kinds = [kind for kind in DIFFERENCES if totals.examples.get(kind)]
    sections = [_section(kind, document["differences"][kind], totals.examples[kind]) for kind in kinds]
    return (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>special compare</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><style>{_STYLE}</style>'
        f"<h1>{escape(document['old'])} → {escape(document['new'])}</h1>"
        f"{_summary(document)}{''.join(sections)}</html>\n"
    )


def _summary(document: Mapping[str, Any]) -> str:
    log = document["log"]
    requests = (
        [kind, it["addresses"], it["lines"], it["differing_lines"], _ms(it["old_ms"]), _ms(it["new_ms"])]
        for kind, it in document["requests"].items()
    )
    differences = (
        [kind + (" (does not count)" if kind in document["ignored"] else ""), it["addresses"], it["lines"]]
        for kind, it in document["differences"].items()
    )
    seen, reads = document["pixels"], document["reads"]
    verdict = "within" if document["alike"] else "more than"
    parts = [
        f"<p><b>{document['differing_percent']:.2f} %</b> of {document['lines']:,} requests differ, {verdict} the "
        f"{document['tolerated_percent']:g} % that are tolerated. Asked: {document['addresses']:,} addresses, a sample "
        f"of {log['fitting']:,} lines; {log['others']:,} lines were about something else.</p>",
        _table(("request", "addresses", "lines", "differ", "old: p50, p95, p99", "new: p50, p95, p99"), requests),
        _table(("difference", "addresses", "lines"), differences),
    ]
    if document["interrupted"]:
        parts.insert(0, "<p><b>Interrupted:</b> not all addresses were asked.</p>")
    if seen["compared"]:
        low = seen["psnr_db"]["lowest"]
        parts.append(
            f"<p>{seen['compared']:,} pairs of pictures that are not the same bytes: "
            f"PSNR {_db(seen['psnr_db']['p50'])} (median), {_db(low)} (lowest); "
            f"mean difference {seen['mean']['p50']:.2f} (median), {seen['mean']['highest']:.2f} (highest) of 255.</p>"
        )
    if reads["answers"]:
        each, prices = reads["per_1000"], reads["prices"]
        routes = ", ".join(f"{name} {count:,}" for name, count in reads["routes"].items())
        parts.append(
            f"<p>What the new server read, for 1,000 different requests: {each['gets']:,.0f} GETs, "
            f"{each['bytes']:,.0f} bytes, {each['cost']:.6f} {escape(prices['currency'])} "
            f"(at {prices['per_1000_gets']:g} for 1,000 GETs, "
            f"{prices['per_gb']:g} for a GB). Routes: {escape(routes)}.</p>"
        )
    if document["metered"]:
        parts.append(
            f"<p>By its metrics it read {document['metered']['gets']:,.0f} GETs and "
            f"{document['metered']['bytes']:,.0f} bytes meanwhile, for all its clients, prefetching included.</p>"
        )
    return "".join(parts)


def _section(kind: str, found: Mapping[str, Any], examples: Iterable[Example]) -> str:
    details = _table(("what", "addresses"), found["details"].items())
    return f"<h2>{escape(kind)}</h2>{details}{''.join(map(_figure, examples))}"


def _figure(example: Example) -> str:
    path = escape(example.comparison.request.path)
    shown = "".join(f"<div>{_shown(it)}</div>" for it in (example.old, example.new))
    figure = f"<figure><figcaption><code>{path}</code><br>{escape(example.difference.detail)}</figcaption>"
    figure += f"<div>{shown}</div>"
    seen = example.comparison.pixels
    if seen and example.difference.kind == "pixels":
        crops = "".join(f"<div>{_shown(it, seen.worst)}</div>" for it in (example.old, example.new))
        figure += f'<p>The worst place, {seen.worst}, {MAGNIFIED} times as large:</p><div class="worst">{crops}</div>'
    return f"{figure}</figure>"


def _shown(answer: Answer | NoAnswer, box: Box | None = None) -> str:
    if isinstance(answer, NoAnswer):
        return f"<pre>{escape(answer.reason)}</pre>"
    about = f"{answer.status} {answer.headers.get('content-type', '')}"
    if answer.headers.get("content-type", "").startswith("image/"):
        try:
            return f'<img alt="{escape(about)}" src="data:image/png;base64,{_preview(answer.body, box)}">'
        except pixels.Unreadable:
            pass
    text = answer.body[: 4 * TEXT_CHARACTERS].decode("utf-8", "replace")[:TEXT_CHARACTERS]
    headers = "\n".join(f"{name}: {value}" for name, value in sorted(answer.headers.items()) if name != "set-cookie")
    whole = f"{answer.status}\n{headers}\n\n{text}"
    return f"<pre>{escape(whole)}</pre>"


def _preview(data: bytes, box: Box | None) -> str:
    picture = Image.fromarray(pixels.rgb(data))
    if box is None:
        picture.thumbnail((PREVIEW, PREVIEW))
    else:
        picture = picture.crop((box.x, box.y, box.right, box.bottom))
        picture = picture.resize((picture.width * MAGNIFIED, picture.height * MAGNIFIED), Image.Resampling.NEAREST)
    packed = BytesIO()
    picture.save(packed, "PNG")
    return base64.b64encode(packed.getvalue()).decode()


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    def cell(value: object) -> str:
        return f'<td class="number">{value:,}</td>' if isinstance(value, int) else f"<td>{escape(str(value))}</td>"

    titles = "".join(f"<th>{escape(it)}</th>" for it in head)
    lines = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<table><tr>{titles}</tr>{lines}</table>"


def _ms(latency: Mapping[str, float]) -> str:
    return ", ".join(f"{value:g}" for value in latency.values()) + " ms" if latency else "–"


def _db(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.1f} dB"


def plain_json(document: Mapping[str, Any]) -> str:
    """The report as JSON."""
    return json.dumps(document, indent=2, ensure_ascii=False)
