"""A service with what users bring along: its engine is used before a server forks, and it is traced and watched.

``NEIGHBOURS`` says with what: any of ``otel``, ``sentry``, ``used-before-fork``.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import sentry_sdk
from fastapi import Depends, FastAPI
from opentelemetry import trace
from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from faststream_outbox import ConstantRetry, make_outbox_table
from faststream_outbox.fastapi import OutboxBroker, OutboxMessage, OutboxRouter

WITH = os.environ.get("NEIGHBOURS", "").split(",")
ENGINE = create_async_engine(os.environ["DATABASE_URL"])
TWICE = ConstantRetry(delay_seconds=0.01, max_attempts=2)

spans = InMemorySpanExporter()
events: list[str] = []

if "otel" in WITH:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    SQLAlchemyInstrumentor().instrument(engine=ENGINE.sync_engine)
    AsyncPGInstrumentor().instrument()


def keep(event: Any, hint: Any) -> None:
    """Note what sentry would send."""
    exceptions = event.get("exception", {}).get("values", [])
    events.append(exceptions[-1]["type"] if exceptions else str(event.get("logentry")))


if "sentry" in WITH:
    sentry_sdk.init(dsn="http://key@127.0.0.1:1/1", before_send=keep, traces_sample_rate=1.0)


async def look_around() -> None:
    """Use the engine in a loop that ends, as a service does that looks at its schema while it is imported."""
    async with ENGINE.connect() as connection:
        await connection.execute(text("SELECT 1"))
    # The workers must not share a connection: a pool forgets those of the process before the fork.
    await ENGINE.dispose()


if "used-before-fork" in WITH:
    asyncio.run(look_around())

router = OutboxRouter(ENGINE, outbox_table=make_outbox_table(MetaData()))
factory = async_sessionmaker(ENGINE, expire_on_commit=False)


async def get_session() -> AsyncIterator[AsyncSession]:
    async with factory() as session, session.begin():
        yield session


@router.subscriber("orders", retry_strategy=TWICE)
async def handle(body: dict, message: OutboxMessage, session: AsyncSession = Depends(get_session)) -> None:
    note = f"{body['item']} {message.headers.get('traceparent', '')[3:35]}"
    await session.execute(text("INSERT INTO receipts (note) VALUES (:note)"), {"note": note})
    if body["item"] == "bad":
        raise LookupError(body["item"])


@router.post("/orders")
async def create(
    item: str, broker: OutboxBroker, session: AsyncSession = Depends(get_session, scope="function")
) -> dict[str, int]:
    await broker.publish({"item": item}, queue="orders", session=session)
    return {"process": os.getpid()}


@router.get("/seen")
async def seen() -> dict[str, list[str]]:
    traces = [format(span.context.trace_id, "032x") + " " + span.name for span in spans.get_finished_spans()]
    return {"spans": traces, "events": events}


app = FastAPI()
app.include_router(router)
if "otel" in WITH:
    FastAPIInstrumentor.instrument_app(app)
