"""The HTTP face: from a request line to headers and a body.

    /{prefix}[/v2|/v3]/{id…}/…    prefixes `iiif` and `iiif-img`: all routes; `thumbs`: stored sizes, level 0
    /auth/                        probe and token services, where a login is configured
    /livez /readyz /metrics       for monitoring
    /                             the viewer

Image routes are raw ASGI: at twenty thousand stored tiles a second every layer shows. The pages
around them are ordinary Starlette.
"""

from special.web.app import App, create_app
from special.web.server import serve_with

__all__ = ["App", "create_app", "serve_with"]
