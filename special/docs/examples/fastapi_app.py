"""A FastAPI application with an image server below /images. Start it with `uvicorn fastapi_app:app`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException

from special import Hooks, Settings, create_app
from special.catalogue import ALL, PUBLIC, Caller, Entry, Verdict
from special.errors import SpecialError


class Readers(Hooks):
    """What is private is small for those who have not logged in at the proxy."""

    async def authorise(self, caller: Caller, image: Entry) -> Verdict:
        if not caller.identifier.startswith("private/"):
            return PUBLIC
        return ALL if "x-remote-user" in caller.headers else Verdict(400)


masters = os.environ.get("MASTERS", "masters")
images = create_app(Settings(source=masters, hooks=f"{__name__}:Readers", workers=1))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with images.running():  # opens the volume and starts the decoders
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/images", images)


@app.get("/size/{identifier:path}")
async def size(identifier: str) -> dict[str, int]:
    try:
        asset = await images.engine.catalog.find(identifier)
    except SpecialError as error:
        raise HTTPException(error.status, error.public) from error
    return {"width": asset.size.width, "height": asset.size.height}
