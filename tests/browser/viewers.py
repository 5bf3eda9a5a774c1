"""Pages with released viewers, as their documentation shows them. `?of=` is a manifest, or an image's info.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.support import npm

_HEAD = (
    "<!doctype html><meta charset=utf-8><style>html, body, #v { margin: 0; width: 100%; height: 100% }</style>"
    "<div id=v class=uv></div><script>const of = new URLSearchParams(location.search).get('of')</script>"
)
_OPENSEADRAGON = (
    '<script src="{0}/build/openseadragon/openseadragon.min.js"></script>'
    "<script>OpenSeadragon({{ id: 'v', tileSources: [of], drawer: 'canvas', showNavigationControl: false }})</script>"
)
_MIRADOR = (
    '<script src="{0}/dist/mirador.min.js"></script>'
    "<script>Mirador.viewer({{ id: 'v', windows: [{{ manifestId: of }}] }})</script>"
)


@dataclass(frozen=True, slots=True)
class Viewer:
    """A released viewer, and a page with it."""

    package: str
    version: str
    body: str
    """With `{0}` for the folder of the package."""
    opens: Literal["info", "manifest"]
    needs: tuple[tuple[str, str], ...] = ()
    """Other packages, each with its version."""
    canvas: str = "body"
    """The element with the picture, where there are smaller pictures beside it."""
    zooms_by: Literal["wheel", "click"] = "wheel"

    @property
    def name(self) -> str:
        return f"{self.package.rpartition('/')[2]}-{self.version}"

    @property
    def page(self) -> str:
        return _HEAD + self.body.format(
            f"{self.name}.files", *(f"{name}-{version}.files" for name, version in self.needs)
        )

    def content(self) -> dict[str, str | Path]:
        """Its page and the files that the page asks for, as `site` serves them."""
        packages = {f"{name}-{version}.files": npm.package(name, version) for name, version in self.needs}
        return {self.name: self.page, f"{self.name}.files": npm.package(self.package, self.version), **packages}


VIEWERS = (
    *(Viewer("openseadragon", version, _OPENSEADRAGON, "info") for version in ("4.1.1", "5.0.1", "6.1.1")),
    *(Viewer("mirador", version, _MIRADOR, "manifest") for version in ("3.4.3", "4.0.0")),
    Viewer(
        "universalviewer",
        "4.4.0",
        '<link rel=stylesheet href="{0}/dist/uv.css"><script src="{0}/dist/umd/UV.js"></script>'
        "<script>addEventListener('DOMContentLoaded', () => UV.init('v', {{ manifest: of }}))</script>",
        "manifest",
    ),
    Viewer(
        "tify",
        "0.35.0",
        '<link rel=stylesheet href="{0}/dist/tify.css">'
        "<script type=module>import Tify from './{0}/dist/tify.js';"
        "new Tify({{ container: '#v', manifestUrl: of }})</script>",
        "manifest",
    ),
    Viewer(
        "@samvera/clover-iiif",
        "3.3.8",
        '<script src="{0}/dist/web-components/index.umd.js"></script><script>'
        "const clover = document.createElement('clover-viewer'); clover.setAttribute('id', of);"
        "document.getElementById('v').append(clover)</script>",
        "manifest",
        canvas=".openseadragon-canvas >> nth=0",
        zooms_by="click",
    ),
    Viewer(
        "leaflet-iiif",
        "3.0.0",
        '<link rel=stylesheet href="{1}/dist/leaflet.css"><script src="{1}/dist/leaflet.js"></script>'
        '<script src="{0}/leaflet-iiif.js"></script><script>'
        "const map = L.map('v', {{ center: [0, 0], crs: L.CRS.Simple, zoom: 0 }});"
        "L.tileLayer.iiif(of).addTo(map)</script>",
        "info",
        needs=(("leaflet", "1.9.4"),),
    ),
)
