"""An application with the page, served in a thread, and an outbox that has something to show."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import psycopg
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from sqlalchemy import MetaData, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import make_dlq_table, make_outbox_control_table, make_outbox_table
from faststream_outbox.admin import make_admin, make_admin_router
from faststream_outbox.admin.admin import OutboxAdmin
from integration.servers.process import LOOPBACK, run

# Characters that mean something in markup, in an address and in a terminal; harmless, and seen as they are.
HOSTILE = "<b>bold</b> & \"quoted\" '%00' {{ 7 * 7 }}"

FILL = """
INSERT INTO outbox (queue, key, idempotency_key, payload, headers, created_at)
SELECT 'orders', 'customer-' || mod(n, 40), 'order-' || n, convert_to('{"order_id": ' || n || '}', 'UTF8'),
    '{"content-type": "application/json"}', now() - interval '4 s' FROM generate_series(1, 182) AS n;
INSERT INTO outbox (queue, key, idempotency_key, payload, headers, created_at)
SELECT 'emails=>kafka:emails', 'customer-' || n, 'mail-' || n, convert_to('{"to": "customer ' || n || '"}', 'UTF8'),
    '{"content-type": "application/json"}', now() - interval '12 min' FROM generate_series(1, 64) AS n;
INSERT INTO outbox (queue, key, idempotency_key, payload, headers, next_attempt_at)
SELECT 'reminders', NULL, 'timer-' || n, '{}', '{}', now() + n * interval '1 hour' FROM generate_series(1, 18) AS n;
INSERT INTO outbox (queue, key, idempotency_key, payload, headers, next_attempt_at, last_attempt_at, attempts_count)
SELECT 'shipments', 'parcel-' || n, 'parcel-' || n, '{}', '{}', now() + interval '40 s', now(), 2
FROM generate_series(1, 3) AS n;
INSERT INTO outbox_dlq (id, queue, key, idempotency_key, payload, headers, attempts_count, deliveries_count, created_at,
    first_attempt_at, outbox, failed_at, failure_reason, last_exception)
SELECT 9007199254740993 + n, 'invoices', 'customer-' || n, 'invoice-' || n,
    convert_to('{"invoice": 900719925474099' || n || ', "amount": 12.50}', 'UTF8'),
    '{"content-type": "application/json", "region": "north"}', 5, 5, now() - interval '2 h', now() - interval '2 h',
    'public.outbox', now() - interval '50 min' + n * interval '20 s', 'retries_exhausted',
    'TimeoutError: billing did not answer within 5 s' FROM generate_series(1, 26) AS n;
INSERT INTO outbox_dlq (id, queue, key, idempotency_key, payload, headers, attempts_count, deliveries_count, created_at,
    outbox, failed_at, failure_reason, last_exception)
SELECT 500 + n, 'invoices', 'customer-' || n, 'other-' || n, '{}', '{}', 3, 3, now() - interval '3 h', 'public.outbox',
    now() - interval '2 h', 'retries_exhausted', 'ReadTimeoutError: the socket said nothing'
FROM generate_series(1, 5) AS n;
INSERT INTO outbox_dlq (id, queue, key, idempotency_key, payload, headers, attempts_count, deliveries_count, created_at,
    outbox, failed_at, failure_reason, last_exception)
VALUES (7, 'imports', %(hostile)s, 'hostile', convert_to(%(hostile)s, 'UTF8'),
    jsonb_build_object('title', CAST(%(hostile)s AS text)), 1, 1, now() - interval '1 h', 'public.outbox',
    now() - interval '30 min', 'rejected', 'ValueError: ' || %(hostile)s);
INSERT INTO outbox_dlq (id, queue, key, idempotency_key, payload, headers, attempts_count, deliveries_count, created_at,
    outbox, failed_at, failure_reason)
VALUES (8, 'imports', NULL, 'bytes', decode('00ff1042', 'hex'), '{}', 1, 1, now() - interval '1 h', 'public.outbox',
        now() - interval '20 min', 'invalid'),
    (9, 'imports', NULL, 'long', convert_to(repeat('0123456789', 5000), 'UTF8'), '{}', 1, 1, now() - interval '1 h',
        'public.outbox', now() - interval '10 min', 'too_large');
"""


def run_sql(url: str, *statements: str) -> None:
    """Run statements on the database of an SQLAlchemy URL."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def fill(url: str) -> None:
    """Have an outbox be as it is on a bad night."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as connection, psycopg.ClientCursor(connection) as cursor:
        cursor.execute(FILL, {"hostile": HOSTILE})


async def make_tables(url: str) -> None:
    """Create the control table, which a test's database lacks."""
    engine = create_async_engine(url)
    metadata = MetaData()
    make_outbox_control_table(metadata)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()


def make_site_admin(url: str, *, control: bool = True) -> tuple[OutboxAdmin, Callable[[], Awaitable[None]]]:
    """Return the admin API of an outbox with all tables, and what closes its connections."""
    engine, metadata = create_async_engine(url), MetaData()
    admin = make_admin(
        engine,
        outbox_table=make_outbox_table(metadata),
        dlq_table=make_dlq_table(metadata),
        control_table=make_outbox_control_table(metadata) if control else None,
    )
    return admin, engine.dispose


def person(x_person: Annotated[str, Header()] = "alice@shop.example") -> str:
    """Who asks; a stranger is refused."""
    if x_person == "stranger":
        raise HTTPException(401, "who are you?")
    return x_person


def operator(who: Annotated[str, Depends(person)]) -> str | None:
    """A visitor may only look."""
    return None if who == "visitor" else who


def make_app(admin: OutboxAdmin, *, prefix: str = "/outbox") -> FastAPI:
    """An application with the page, guarded."""
    app = FastAPI()
    app.include_router(
        make_admin_router(admin, dependencies=[Depends(person)], actor=operator, prefix=prefix, title="shop")
    )
    return app


@contextmanager
def served(app: FastAPI, *, root_path: str = "") -> Iterator[str]:
    """Serve an application in a thread; yields its address."""
    server = uvicorn.Server(uvicorn.Config(app, host=LOOPBACK, port=0, log_level="warning", root_path=root_path))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server has ended while it started"
            thread.join(0.02)
        yield f"http://{LOOPBACK}:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


@contextmanager
def served_outbox(url: str) -> Iterator[str]:
    """Serve the page of an outbox of a bad night; yields the page's address."""
    run(make_tables(url))
    fill(url)
    admin, _ = make_site_admin(url)
    with served(make_app(admin)) as address:
        yield f"{address}/outbox/"
