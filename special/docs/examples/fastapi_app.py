"""A FastAPI application with an image server below /images. Start it with `uvicorn fastapi_app:app`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from special import Settings, create_app

images = create_app(Settings(source=os.environ.get("MASTERS", "masters"), workers=1))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with images.running():  # opens the volume and starts the decoders
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/images", images)


@app.get("/size/{identifier:path}")
async def size(identifier: str) -> dict[str, int]:
    asset = await images.engine.catalog.find(identifier)
    return {"width": asset.size.width, "height": asset.size.height}
