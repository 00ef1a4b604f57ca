from collections.abc import AsyncIterator

import httpx
import pytest
from asgi_lifespan import LifespanManager
from fastapi import FastAPI

from faststream_outbox.admin.admin import OutboxAdmin

from .served import fill, make_app, make_site_admin, make_tables

BASE = "http://shop.example/outbox/"


@pytest.fixture
async def admin(database_url: str) -> AsyncIterator[OutboxAdmin]:
    """The outbox of a bad night."""
    await make_tables(database_url)
    fill(database_url)
    admin, close = make_site_admin(database_url)
    yield admin
    await close()


@pytest.fixture
def app(admin: OutboxAdmin) -> FastAPI:
    return make_app(admin)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A person at the page."""
    async with (
        LifespanManager(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as client,
    ):
        yield client
