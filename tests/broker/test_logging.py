"""What rows and errors have in them cannot write lines of its own into the log."""

import io
import logging
from collections.abc import Iterator

import pytest
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import OutboxBroker
from faststream_outbox.annotations import OutboxMessage
from tests.rows import make_row

FORGED = "x\n2030-01-01 CRITICAL - all is lost\x1b[2J"
ROW = make_row(7, queue=FORGED, key=FORGED, idempotency_key=FORGED, payload=b"7", headers={"correlation_id": FORGED})


@pytest.fixture
def written() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(written: io.StringIO) -> Iterator[logging.Logger]:
    logger = logging.Logger("outbox of a test", logging.INFO)  # noqa: LOG001 - nobody else is to find it
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("- %(queue)s %(message_id)s %(message)s", defaults=dict.fromkeys(_CONTEXT)))
    logger.addHandler(handler)
    yield logger
    handler.close()


_CONTEXT = ("queue", "message_id")


async def test_a_row_that_somebody_wrote_by_sql_has_one_line_in_the_log_for_each_record(
    engine: AsyncEngine, outbox_table: Table, logger: logging.Logger, written: io.StringIO
) -> None:
    broker = OutboxBroker(engine, outbox_table=outbox_table, logger=logger, graceful_timeout=0.1)

    @broker.subscriber("orders", max_deliveries=1)
    async def handle(message: OutboxMessage) -> None:
        await message.reject()

    await broker.connect()
    [subscriber] = broker.subscribers
    await broker.start()
    await subscriber.execute(ROW)
    await subscriber.execute(ROW._replace(deliveries_count=2))
    await broker.stop()
    about_the_row = [line for line in written.getvalue().splitlines() if "2030-01-01" in line]
    assert len(about_the_row) == 4, "received, processed, and twice a dead letter"
    assert all(line.startswith(r"- x\n2030-01-01 CRITICAL - all is lost\x1b[2J ") for line in about_the_row)


async def test_what_the_engine_says_of_a_row_is_one_line_too(
    engine: AsyncEngine, outbox_table: Table, logger: logging.Logger, written: io.StringIO
) -> None:
    broker = OutboxBroker(engine, outbox_table=outbox_table, logger=logger)
    await broker.start()
    broker.config.runtime.log(logging.WARNING, f"transform: ValueError: {FORGED}", None)
    await broker.stop()
    assert r"transform: ValueError: x\n2030-01-01 CRITICAL - all is lost\x1b[2J" in written.getvalue()
