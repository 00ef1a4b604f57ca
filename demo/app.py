"""The shop with its live page, as ``python -m demo`` serves it.

With ``DATABASE_URL`` and ``KAFKA_BOOTSTRAP`` in the environment, ``uvicorn demo.app:app`` serves it as well.
"""

import os
from pathlib import Path

from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from demo import feed, servers, shop
from demo.hosts import KnownHosts
from faststream_outbox.fastapi import OutboxBroker

STATIC = Path(__file__).parent / "static"

app = shop.app
app.add_middleware(KnownHosts)
app.include_router(feed.make_router(shop.engine, os.environ["KAFKA_BOOTSTRAP"], servers.TOPIC))
app.mount("/static", StaticFiles(directory=STATIC), name="static")


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    # The page needs nothing from elsewhere, and a text that a person typed must never be able to change that.
    return FileResponse(STATIC / "index.html", headers={"Content-Security-Policy": "default-src 'self'"})


@app.get("/healthz")
async def health(broker: OutboxBroker) -> dict[str, bool]:
    return {"ok": await broker.ping()}
