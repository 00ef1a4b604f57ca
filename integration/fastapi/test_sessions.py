"""A route whose session nobody commits is told of; one that fails is not."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from faststream_outbox.fastapi import OutboxBroker, OutboxRouter
from integration.broker.observing import LogLines


@pytest.mark.parametrize("scope", ["function", "request"])
@pytest.mark.parametrize("closing", ["block", "finally"])
async def test_a_dependency_that_does_not_commit(
    engine: AsyncEngine, outbox_table: Table, scope: Any, closing: str
) -> None:
    log = LogLines()
    factory = async_sessionmaker(engine)

    async def in_a_block() -> AsyncIterator[AsyncSession]:
        async with factory() as session:
            yield session

    async def closed_at_last() -> AsyncIterator[AsyncSession]:
        session = factory()
        try:
            yield session
        finally:
            await session.close()

    get_session = in_a_block if closing == "block" else closed_at_last
    router = OutboxRouter(engine, outbox_table=outbox_table, logger=log)

    @router.post("/orders")
    async def create(
        broker: OutboxBroker, then: str = "", session: AsyncSession = Depends(get_session, scope=scope)
    ) -> None:
        await broker.publish({}, queue="orders", session=session)
        if then == "commit":
            await session.commit()
        elif then == "refuse":
            raise HTTPException(409)
        elif then == "fail":
            raise LookupError

    app = FastAPI()
    app.include_router(router)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app") as client,
    ):
        for then, status in (("commit", 200), ("refuse", 409), ("fail", 500)):
            assert (await client.post("/orders", params={"then": then})).status_code == status
            assert log.containing("without commit") == []
        assert (await client.post("/orders")).status_code == 200
        assert len(log.containing("closed without commit after messages to 'orders'")) == 1
