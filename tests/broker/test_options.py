"""Every option of the broker and of a subscriber has its effect."""

import asyncio
import io
import logging
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import pytest
from fast_depends import Provider
from faststream import ContextRepo, Depends
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import NoRetry, OutboxBroker, TestOutboxBroker
from faststream_outbox.annotations import ContextRepo as Repo
from faststream_outbox.annotations import Logger, OutboxMessage, OutboxProducer
from faststream_outbox.annotations import OutboxBroker as Broker
from faststream_outbox.subscriber.usecase import OutboxSubscriber
from tests.rows import make_row

MakeBroker = Callable[..., OutboxBroker]


@pytest.fixture
def make(engine: AsyncEngine, outbox_table: Table) -> MakeBroker:
    return lambda **options: OutboxBroker(engine, outbox_table=outbox_table, **{"logger": None} | options)


async def receive(broker: OutboxBroker, body: Any = b"", **options: Any) -> None:
    async with TestOutboxBroker(broker):
        await broker.publish(body, queue="a", session=None, **options)  # type: ignore[arg-type]


async def test_the_annotated_shortcuts_give_what_they_name(make: MakeBroker) -> None:
    broker = make(logger=logging.getLogger("of a test"))
    seen: list[Any] = []

    @broker.subscriber("a")
    async def handle(
        its_broker: Broker, message: OutboxMessage, producer: OutboxProducer, repo: Repo, logger: Logger
    ) -> None:
        seen.append((its_broker, message.queue, producer, repo, logger))

    await receive(broker)
    ((*others, given_logger),) = seen
    assert others == [broker, "a", broker.config.producer, broker.context]
    assert hasattr(given_logger, "info"), "FastStream's test broker puts a mock in its place"


async def test_dependencies_run_for_each_message(make: MakeBroker) -> None:
    ran: list[str] = []
    broker = make(dependencies=[Depends(lambda: ran.append("broker"))])
    subscriber = broker.subscriber("a", dependencies=[Depends(lambda: ran.append("subscriber"))])

    @subscriber(dependencies=[Depends(lambda: ran.append("handler"))])
    async def handle(body: bytes) -> None: ...

    await receive(broker)
    assert sorted(ran) == ["broker", "handler", "subscriber"]


async def test_without_apply_types_a_handler_gets_the_body_as_it_is(make: MakeBroker) -> None:
    broker = make(apply_types=False)
    seen: list[Any] = []

    @broker.subscriber("a")
    async def handle(body: int) -> None:
        seen.append(body)

    await receive(broker, "7")
    assert seen == ["7"]


async def test_context_and_provider_are_those_that_were_given(make: MakeBroker) -> None:
    context, provider = ContextRepo(), Provider()
    broker = make(context=context, provider=provider)
    assert broker.context is context
    assert broker.provider is provider


async def test_the_serializer_encodes_and_validates(make: MakeBroker) -> None:
    broker = make(serializer=None)
    seen: list[Any] = []

    @broker.subscriber("a")
    async def handle(body: int) -> None:
        seen.append(body)

    await receive(broker, ["not", "an int"])
    assert seen == [["not", "an int"]], "without one nothing is cast"


@pytest.mark.parametrize("option", ["graceful_timeout", "id_generator"])
def test_settings_reach_the_configuration(make: MakeBroker, option: str) -> None:
    value: Any = 3.5 if option == "graceful_timeout" else lambda: "id"
    assert getattr(make(**{option: value}).config, option) is value


async def test_options_of_a_subscriber_reach_its_consumer(
    broker: OutboxBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    @broker.subscriber(
        ["a", "b"],
        max_workers=3,
        fetch_batch_size=7,
        lease_ttl_seconds=9,
        min_fetch_interval=0.5,
        max_fetch_interval=4,
    )
    async def handle(body: bytes) -> None: ...

    from faststream_outbox._engine.runtime import Runtime

    original = Runtime.consumer

    def consumer(runtime: Any, name: str, queues: Any, execute: Any, **options: Any) -> Any:
        given.update(options, name=name, queues=list(queues))
        return original(runtime, name, queues, execute, **options)

    monkeypatch.setattr(Runtime, "consumer", consumer)
    await broker.start()
    assert given == {
        "name": "Handle",
        "queues": ["a", "b"],
        "workers": 3,
        "batch_size": 7,
        "lease_seconds": 9,
        "min_interval": 0.5,
        "max_interval": 4,
    }


async def test_a_subscriber_that_is_not_persistent_goes_with_its_last_reference(broker: OutboxBroker) -> None:
    import gc

    broker.subscriber("kept")
    broker.subscriber("gone", persistent=False)
    gc.collect()
    assert [each.queues for each in broker.subscribers] == [["kept"]]


class Lines(logging.Logger):
    def __init__(self) -> None:
        super().__init__("of a test", logging.DEBUG)
        self.by_message: dict[str, logging.LogRecord] = {}

    def handle(self, record: logging.LogRecord) -> None:
        self.by_message[record.getMessage()] = record


ROW = make_row(7, queue="a-queue-of-some-length", idempotency_key="01990000-0000-7000-8000-0123456789ab")


def add_failing_handler(broker: OutboxBroker) -> OutboxSubscriber:
    subscriber = broker.subscriber([ROW.queue, "b"], retry_strategy=NoRetry(), max_deliveries=3)

    @subscriber
    async def handle(body: bytes) -> None:
        raise ValueError("broken")

    return subscriber


@pytest.mark.parametrize("level", [logging.DEBUG, logging.WARNING])
async def test_lines_about_a_message_name_it_and_its_queue(make: MakeBroker, level: int) -> None:
    broker = make(logger=(lines := Lines()), log_level=level, graceful_timeout=0.1)
    subscriber = add_failing_handler(broker)
    async with broker:
        await broker.start()
        await subscriber.execute(ROW)
    assert vars(lines.by_message["`Handle` waiting for messages"])["queue"] == f"{ROW.queue},b"
    dead = "row 7 goes to the dead letters: retries_exhausted"
    for line in ("Received", "ValueError: broken", "Processed", dead):
        record = vars(lines.by_message[line])
        assert (record["queue"], record["message_id"]) == (ROW.queue, ROW.idempotency_key)
    assert lines.by_message["Received"].levelno == level
    assert lines.by_message["ValueError: broken"].levelno == lines.by_message[dead].levelno == logging.ERROR


async def test_a_row_that_dies_unhandled_is_logged(make: MakeBroker) -> None:
    broker = make(logger=(lines := Lines()), graceful_timeout=0.1)
    subscriber = add_failing_handler(broker)
    async with broker:
        await broker.start()
        await subscriber.execute(ROW._replace(deliveries_count=4))
    assert "row 7 goes to the dead letters: max_deliveries" in lines.by_message
    assert "Received" not in lines.by_message


async def test_the_default_logger_shows_whole_keys(engine: AsyncEngine, outbox_table: Table) -> None:
    """A UUIDv7 begins with its time: cut short, all messages of a few seconds would look the same."""
    with redirect_stdout(io.StringIO()) as output:
        broker = OutboxBroker(engine, outbox_table=outbox_table, graceful_timeout=0.1)
        subscriber = add_failing_handler(broker)
        async with broker:
            await broker.start()
            await subscriber.execute(ROW)
    logging.getLogger("faststream.access.outbox").handlers.clear()
    assert f"a-queue-of-some-length | {ROW.idempotency_key} - Received" in output.getvalue()


async def test_a_broker_without_a_logger_says_nothing(make: MakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    broker = make(graceful_timeout=0.1)

    @broker.subscriber("a")
    async def handle(body: bytes) -> None: ...

    await broker.start()
    await asyncio.sleep(0.2)
    await broker.stop()
    assert capsys.readouterr().out == ""
