"""The live feed behind the page: what PostgreSQL committed and what arrived from Kafka, as Server-Sent Events.

The shop does not know that it is watched. Triggers on its tables notify the feed, and PostgreSQL delivers a
notification only when the transaction that caused it has committed: the feed shows nothing of a rolled-back order
because there is nothing. It does not poll either, so that it sees an outbox row that lived for three milliseconds.
"""

import asyncio
import json
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaConsumer
from fastapi import APIRouter, FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

Event = dict[str, Any]

HISTORY = 500
KEEP_ALIVE_SECONDS = 15.0
CHANNEL = "demo_feed"

# A notification carries at most 8000 bytes, so a row's wide columns stay behind, and its payload is cut.
WATCH = """
CREATE OR REPLACE FUNCTION demo_feed() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
    row_ jsonb := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
BEGIN
    PERFORM pg_notify('demo_feed', jsonb_build_object(
        'table', TG_TABLE_NAME,
        'op', lower(TG_OP),
        'row', row_ - ARRAY['payload', 'headers', 'last_exception'],
        'payload', left(row_ ->> 'payload', 3000)
    )::text);
    RETURN NULL;
END
$body$;
CREATE OR REPLACE TRIGGER demo_feed AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION demo_feed();
CREATE OR REPLACE TRIGGER demo_feed AFTER INSERT ON parcels FOR EACH ROW EXECUTE FUNCTION demo_feed();
CREATE OR REPLACE TRIGGER demo_feed AFTER INSERT OR DELETE ON outbox FOR EACH ROW EXECUTE FUNCTION demo_feed();
"""

COUNT = """
SELECT (SELECT count(*) FROM orders) AS orders,
       (SELECT count(*) FROM outbox) AS outbox,
       (SELECT count(*) FROM parcels) AS parcels
"""


class Hub:
    """Hands each event to every open page, and the recent ones to a page that opens later."""

    def __init__(self) -> None:
        # A page that reconnects to another run of the demo must forget the orders of the run before.
        self._hello: Event = {"kind": "hello", "run": secrets.token_hex(4)}
        self._counts: Event = {"kind": "counts"}
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._pages: set[asyncio.Queue[Event | None]] = set()
        self._closed = False

    def send(self, **event: Any) -> None:
        event["at"] = time.time() * 1000
        self._history.append(event)
        self._hand_out(event)

    def count(self, **counts: int) -> None:
        self._counts |= counts
        self._hand_out(self._counts)

    def close(self) -> None:
        """End every open stream: a server that stops waits for its responses."""
        self._closed = True
        self._hand_out(None)

    async def stream(self) -> AsyncIterator[str]:
        """Yield Server-Sent Events until the page goes away or the hub closes."""
        events: asyncio.Queue[Event | None] = asyncio.Queue(maxsize=4 * HISTORY)
        for event in (self._hello, *self._history, self._counts, *((None,) if self._closed else ())):
            events.put_nowait(event)
        self._pages.add(events)
        try:
            yield "retry: 1000\n\n"
            while True:
                try:
                    event = await asyncio.wait_for(events.get(), KEEP_ALIVE_SECONDS)
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                if event is None:
                    return
                yield f"data: {json.dumps(event)}\n\n"
        finally:
            self._pages.discard(events)

    def _hand_out(self, event: Event | None) -> None:
        for page in self._pages:
            if page.full():  # a page that does not read loses what is oldest
                page.get_nowait()
            page.put_nowait(event)


hub = Hub()


def make_router(engine: AsyncEngine, bootstrap: str, topic: str) -> APIRouter:
    """Return a router with ``/events``, which watches the shop's tables and the topic while the application runs."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with _watching_tables(engine), _watching_topic(bootstrap, topic):
            yield

    router = APIRouter(lifespan=lifespan)

    @router.get("/events", include_in_schema=False)
    async def events() -> StreamingResponse:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(hub.stream(), media_type="text/event-stream", headers=headers)

    return router


@asynccontextmanager
async def _watching_tables(engine: AsyncEngine) -> AsyncIterator[None]:
    changed = asyncio.Event()
    changed.set()

    def on_notification(_connection: object, _pid: int, _channel: str, notification: str) -> None:
        _send_change(json.loads(notification))
        changed.set()

    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        await driver.execute(WATCH)
        await driver.add_listener(CHANNEL, on_notification)
        counting = asyncio.create_task(_count_rows(engine, changed))
        try:
            yield
        finally:
            await _cancel(counting)
            await driver.remove_listener(CHANNEL, on_notification)


def _send_change(change: Event) -> None:
    row = change["row"]
    match change["table"], change["op"]:
        case "orders", _:
            hub.send(kind="order", order_id=row["id"], **_pick(row, "customer", "item", "quantity", "status"))
        case "parcels", _:
            hub.send(kind="parcel", **_pick(row, "id", "order_id", "idempotency_key"))
        case "outbox", op:
            body = json.loads(bytes.fromhex(change["payload"].removeprefix("\\x")))
            hub.send(
                kind="staged" if op == "insert" else "left",
                order_id=body["order_id"],
                **_pick(row, "id", "queue", "key", "idempotency_key"),
            )


async def _count_rows(engine: AsyncEngine, changed: asyncio.Event) -> None:
    while await changed.wait():
        changed.clear()
        async with engine.connect() as connection:
            counts = (await connection.execute(text(COUNT))).one()
        hub.count(**counts._mapping)  # noqa: SLF001 (SQLAlchemy's public name for a row's mapping)


@asynccontextmanager
async def _watching_topic(bootstrap: str, topic: str) -> AsyncIterator[None]:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, fetch_max_wait_ms=20)
    await consumer.start()
    try:
        # Asks the cluster where the topic ends right now: without it, the consumer asks on its first fetch, and would
        # miss what arrives before.
        await consumer.seek_to_end()
        consuming = asyncio.create_task(_consume(consumer))
        yield
        await _cancel(consuming)
    finally:
        await consumer.stop()


async def _consume(consumer: AIOKafkaConsumer) -> None:
    seen = 0
    hub.count(topic=seen)
    async for record in consumer:
        headers = {name: value.decode() for name, value in record.headers}
        hub.send(
            kind="arrived",
            order_id=json.loads(record.value)["order_id"],
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=record.key.decode(),
            idempotency_key=headers["idempotency-key"],
        )
        seen += 1
        hub.count(topic=seen)


def _pick(row: Event, *names: str) -> Event:
    return {name: row[name] for name in names}


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
