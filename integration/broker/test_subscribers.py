"""What subscribers do with messages, and what becomes of a message whose handler fails."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from faststream import AckPolicy, BaseMiddleware, Depends, Response
from faststream.exceptions import AckMessage, NackMessage, RejectMessage, StopConsume
from sqlalchemy import Table as SqlTable
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from tenacity.stop import stop_after_attempt
from tenacity.wait import wait_fixed

from faststream_outbox import (
    ConfigError,
    ConstantRetry,
    ExponentialRetry,
    LinearRetry,
    NoRetry,
    OutboxBroker,
    OutboxResponse,
)
from faststream_outbox.annotations import OutboxBroker as Broker
from faststream_outbox.annotations import OutboxMessage as Message

from .conftest import MakeBroker
from .observing import Inbox, Table, eventually


async def test_max_workers_handle_as_many_at_a_time_and_no_more(
    broker: OutboxBroker, session: AsyncSession, inbox: Inbox, table: Table
) -> None:
    running = most = 0
    gate = asyncio.Event()

    @broker.subscriber("orders", max_workers=4)
    async def handle(body: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        inbox.add(body)

    await broker.publish_batch(*range(20), queue="orders", session=session)
    await session.commit()
    await broker.start()
    await eventually(lambda: running == 4)
    gate.set()
    await inbox.wait_for(20)
    assert most == 4
    assert set(inbox.counts.values()) == {1}
    await eventually(table.is_empty)


async def test_a_subscriber_of_several_queues_serves_them_all(
    broker: OutboxBroker, session: AsyncSession, inbox: Inbox, table: Table
) -> None:
    @broker.subscriber(["a", "b", "c"])
    async def handle(body: int, message: Message) -> None:
        inbox.add((message.queue, body))

    await broker.start()
    for queue in ("a", "b", "c", "not theirs"):
        await broker.publish_batch(1, 2, queue=queue, session=session)
    await session.commit()
    await inbox.wait_for(6)
    assert inbox.counts == {(queue, body): 1 for queue in "abc" for body in (1, 2)}
    await eventually(lambda: table.count("queue = 'not theirs'"))
    await eventually(lambda: _is(table.count(), 2))


async def _is(awaitable: Any, value: Any) -> bool:
    return bool(await awaitable == value)


@pytest.mark.parametrize(
    "retry",
    [
        ConstantRetry(delay_seconds=0.1, max_attempts=3),
        LinearRetry(initial_delay_seconds=0.05, step_seconds=0.1, max_attempts=3),
        ExponentialRetry(initial_delay_seconds=0.05, multiplier=3, max_attempts=3),
        (wait_fixed(0.1), stop_after_attempt(3)),
    ],
    ids=["constant", "linear", "exponential", "tenacity pair"],
)
async def test_g2_retries_follow_the_strategy_and_end_in_the_dead_letters(
    broker: OutboxBroker, session: AsyncSession, table: Table, retry: Any
) -> None:
    seen: list[tuple[Any, ...]] = []

    @broker.subscriber("orders", retry_strategy=retry)
    async def handle(body: str, message: Message) -> None:
        row = message.row
        seen.append(
            (
                message.attempts_count,
                message.deliveries_count,
                row.first_attempt_at,
                row.last_attempt_at,
                time.monotonic(),
            )
        )
        raise ValueError(f"attempt {len(seen)}")

    await broker.start()
    await broker.publish("x", queue="orders", session=session, idempotency_key="one")
    await session.commit()
    await eventually(lambda: table.count("failed_at IS NOT NULL"))
    (row,) = await table.rows()
    assert [attempts for attempts, *_ in seen] == [0, 1, 2]
    assert [deliveries for _, deliveries, *_ in seen] == [1, 2, 3]
    assert seen[0][2:4] == (None, None)
    assert seen[1][2] == seen[2][2] == row.first_attempt_at, "the first attempt stays the first"
    assert seen[1][3] < seen[2][3] < row.last_attempt_at
    assert (row.attempts_count, row.failure_reason) == (3, "retries_exhausted")
    assert row.last_exception == "ValueError: attempt 3"
    assert row.idempotency_key == "one"
    assert seen[-1][4] - seen[0][4] >= 0.18


async def test_a_retry_is_made_when_it_is_due_though_the_handler_was_slow(
    broker: OutboxBroker, session: AsyncSession, inbox: Inbox
) -> None:
    """The retry is written long after the last look for rows, and the next look would be far away."""

    @broker.subscriber("orders", retry_strategy=ConstantRetry(delay_seconds=0.2), min_fetch_interval=10.0)
    async def handle(body: str) -> None:
        await asyncio.sleep(0.4)
        inbox.add(body)
        raise ValueError

    await broker.start()
    await broker.publish("x", queue="orders", session=session)
    await session.commit()
    await inbox.wait_for(2, within=8)
    # The delay and the handler's own time; the next poll would come after 10 s.
    assert 0.59 < inbox.times[1] - inbox.times[0] < 5


# The policy; what the handler does; what becomes of the row: gone, waits for a retry, or dead.
FATES: list[tuple[AckPolicy | None, Any, str]] = [
    (None, None, "gone"),
    (None, ValueError("x"), "waits"),
    (None, AckMessage(), "gone"),
    (None, NackMessage(), "waits"),
    (None, RejectMessage(), "dead"),
    (None, "ack", "gone"),
    (None, "nack", "waits"),
    (None, "reject", "dead"),
    (None, asyncio.CancelledError(), "waits"),
    (None, KeyError(), "waits"),
    (AckPolicy.NACK_ON_ERROR, ValueError("x"), "waits"),
    (AckPolicy.REJECT_ON_ERROR, None, "gone"),
    (AckPolicy.REJECT_ON_ERROR, ValueError("x"), "dead"),
    (AckPolicy.REJECT_ON_ERROR, NackMessage(), "waits"),
    (AckPolicy.ACK, None, "gone"),
    (AckPolicy.ACK, ValueError("x"), "gone"),
    (AckPolicy.ACK, RejectMessage(), "dead"),
    (AckPolicy.MANUAL, None, "waits"),
    (AckPolicy.MANUAL, ValueError("x"), "waits"),
    (AckPolicy.MANUAL, "ack", "gone"),
    (AckPolicy.MANUAL, "nack", "waits"),
    (AckPolicy.MANUAL, "reject", "dead"),
    (AckPolicy.MANUAL, ("ack", ValueError("x")), "gone"),
]


async def test_g2_every_ack_policy_and_decision_leads_where_it_should(
    broker: OutboxBroker, session: AsyncSession, table: Table
) -> None:
    for number, (policy, act, _) in enumerate(FATES):

        async def handle(body: str, message: Message, act: Any = act) -> None:
            for step in act if isinstance(act, tuple) else (act,):
                if isinstance(step, str):
                    await getattr(message, step)()
                elif step is not None:
                    raise step

        options = {} if policy is None else {"ack_policy": policy}
        del handle.__annotations__["act"]
        broker.subscriber(f"q{number}", retry_strategy=ConstantRetry(delay_seconds=60), **options)(handle)
        await broker.publish("x", queue=f"q{number}", session=session)
    await session.commit()
    await broker.start()
    await eventually(lambda: table_is_settled(table))
    fates = {f"q{number}": "gone" for number in range(len(FATES))}
    for row in await table.rows():
        assert row.attempts_count == 1
        if row.failed_at is not None:
            assert row.failure_reason == "rejected"
        fates[row.queue] = "waits" if row.failed_at is None else "dead"
    wrong = [(FATES[n], fates[f"q{n}"]) for n in range(len(FATES)) if FATES[n][2] != fates[f"q{n}"]]
    assert not wrong


async def table_is_settled(table: Table) -> bool:
    return await table.count("attempts_count = 0") == 0


async def test_a_manual_handler_that_decides_nothing_is_told_so(
    broker: OutboxBroker, session: AsyncSession, table: Table
) -> None:
    @broker.subscriber("orders", ack_policy=AckPolicy.MANUAL)
    async def handle(body: str) -> None: ...

    await broker.start()
    await broker.publish("x", queue="orders", session=session)
    await session.commit()
    await eventually(lambda: table.count("last_exception LIKE '%without ack, nack or reject%'"))


async def test_ack_first_is_refused(broker: OutboxBroker, make_broker: MakeBroker) -> None:
    with pytest.raises(ConfigError, match="ack_policy: ACK_FIRST would lose"):
        broker.subscriber("orders", ack_policy=AckPolicy.ACK_FIRST)
    with pytest.raises(ConfigError, match="ack_policy: ACK_FIRST would lose"):
        make_broker(ack_policy=AckPolicy.ACK_FIRST).subscriber("orders")


async def test_g2_with_a_dead_letter_table_dead_rows_move_there(
    make_broker: MakeBroker, session: AsyncSession, table: Table, dlq_table: SqlTable
) -> None:
    broker = make_broker(dlq_table=dlq_table)

    @broker.subscriber("orders", retry_strategy=NoRetry())
    async def handle(body: dict[str, Any]) -> None:
        raise ValueError("no\x00such \ud800 order")

    await broker.start()
    published = await broker.publish(
        {"n": 1}, queue="orders", session=session, key="k", headers={"h": "v"}, idempotency_key="one", timer_id="t"
    )
    await session.commit()
    await eventually(lambda: table.count(name="outbox_dlq"))
    assert await table.is_empty()
    (row,) = await table.rows("outbox_dlq")
    assert (row.id, row.queue, row.key, row.idempotency_key, row.timer_id) == (published, "orders", "k", "one", "t")
    assert (bytes(row.payload), row.headers["h"]) == (b'{"n":1}', "v")
    assert (row.attempts_count, row.deliveries_count, row.failure_reason) == (1, 1, "retries_exhausted")
    assert row.last_exception == r"ValueError: no\x00such ? order"
    assert row.created_at < row.first_attempt_at <= row.last_attempt_at <= row.failed_at


@pytest.mark.parametrize("with_table", [False, True], ids=["parked", "moved"])
async def test_g11_a_row_that_was_delivered_too_often_dies_unhandled(
    make_broker: MakeBroker, session: AsyncSession, table: Table, dlq_table: SqlTable, with_table: bool
) -> None:
    broker = make_broker(dlq_table=dlq_table if with_table else None)
    inbox = Inbox()

    @broker.subscriber("orders", max_deliveries=3)
    async def handle(body: int) -> None:
        inbox.add(body)

    await broker.publish_batch(0, 1, queue="orders", session=session)
    await session.commit()
    # As if processes had died with it in their hands.
    await table.query("UPDATE outbox SET deliveries_count = 3 WHERE payload = '0'")
    await table.query("UPDATE outbox SET deliveries_count = 2 WHERE payload = '1'")
    await broker.start()
    dead = "outbox_dlq" if with_table else "outbox"
    await eventually(lambda: table.count("failure_reason = 'max_deliveries'", dead))
    assert await inbox.wait_for(1) == [1]
    await eventually(lambda: _is(table.count(name=dead), 1))
    (row,) = await table.rows(dead)
    assert (bytes(row.payload), row.deliveries_count) == (b"0", 4)
    assert row.last_exception == "claimed 4 times"


QUICK = 40


async def test_stop_consume_stops_its_subscriber_and_no_other(
    broker: OutboxBroker, session: AsyncSession, table: Table, inbox: Inbox
) -> None:
    @broker.subscriber("stops", retry_strategy=ConstantRetry(delay_seconds=0))
    async def stops(body: int) -> None:
        if body >= QUICK:
            inbox.add("stops")
            raise StopConsume

    @broker.subscriber("goes on")
    async def goes_on(body: int) -> None:
        inbox.add("goes on")

    # Rows are claimed ahead while handlers are quick; those must not be begun after the request to stop.
    await broker.publish_batch(*range(QUICK + 5), queue="stops", session=session)
    await session.commit()
    await broker.start()
    await inbox.wait_for(1)
    (subscriber,) = (each for each in broker.subscribers if "stops" in each.queues)
    await eventually(lambda: not subscriber.running and not subscriber._consumer)
    await eventually(lambda: _is(table.count("acquired_token IS NULL"), 5), within=3)
    await broker.publish(0, queue="goes on", session=session)
    await session.commit()
    await inbox.wait_for(2)
    assert inbox.bodies == ["stops", "goes on"]

    await subscriber.start()
    await inbox.wait_for(3)
    assert inbox.bodies[2] == "stops", "it can be started again"


@pytest.mark.parametrize("propagate", [True, False])
async def test_inbound_headers_go_along_when_asked_for(
    broker: OutboxBroker, session: AsyncSession, session_factory: Any, inbox: Inbox, propagate: bool
) -> None:
    async def get_session() -> AsyncIterator[AsyncSession]:
        async with session_factory.begin() as own:
            yield own

    @broker.subscriber("first", propagate_inbound_headers=propagate)
    async def first(body: str, own: AsyncSession = Depends(get_session)) -> OutboxResponse:
        return OutboxResponse(body, queue="second", session=own, headers={"own": "1", "both": "response"})

    @broker.subscriber("second", propagate_inbound_headers=propagate)
    @broker.publisher("third")
    async def second(body: str, message: Message) -> Response:
        inbox.add((message.headers, message.correlation_id, message.idempotency_key))
        return Response(body, headers={"added": "1"})

    @broker.subscriber("third")
    async def third(body: str, message: Message) -> None:
        inbox.add((message.headers, message.correlation_id, message.idempotency_key))

    await broker.start()
    await broker.publish(
        "x",
        queue="first",
        session=session,
        headers={"traceparent": "t", "both": "inbound"},
        correlation_id="c",
        idempotency_key="i",
    )
    await session.commit()
    (of_second, correlation, key), (of_third, _, last_key) = await inbox.wait_for(2)
    assert correlation == of_third["correlation_id"] == "c", "the correlation id goes along in any case"
    assert len({"i", key, last_key}) == 3, "each message is one of its own"
    assert of_second["both"] == "response"
    assert of_third["added"] == "1"
    assert of_second.get("traceparent") == of_third.get("traceparent") == ("t" if propagate else None)
    assert of_third.get("own") == ("1" if propagate else None)
    assert of_second["outbox-queue"] == "second"


async def test_a_synchronous_handler_runs_in_a_thread_of_its_own(
    broker: OutboxBroker, session: AsyncSession, inbox: Inbox, table: Table
) -> None:
    @broker.subscriber("orders", max_workers=2)
    def handle(body: int) -> None:
        time.sleep(0.05)
        inbox.add(threading.current_thread() is threading.main_thread())

    await broker.start()
    await broker.publish_batch(1, 2, queue="orders", session=session)
    await session.commit()
    assert await inbox.wait_for(2) == [False, False]
    await eventually(table.is_empty)


async def test_filters_choose_the_handler_and_a_message_without_one_is_not_lost(
    broker: OutboxBroker, session: AsyncSession, inbox: Inbox, table: Table
) -> None:
    subscriber = broker.subscriber("orders", retry_strategy=NoRetry())

    @subscriber(filter=lambda message: message.headers.get("kind") == "a")
    async def of_a(body: str) -> None:
        inbox.add(("a", body))

    @subscriber(filter=lambda message: message.headers.get("kind") == "b")
    async def of_b(body: str) -> None:
        inbox.add(("b", body))

    await broker.start()
    for kind in "abc":
        await broker.publish(kind, queue="orders", session=session, headers={"kind": kind})
    await session.commit()
    assert sorted(await inbox.wait_for(2)) == [("a", "a"), ("b", "b")]
    await eventually(lambda: table.count("failed_at IS NOT NULL AND headers->>'kind' = 'c'"))
    assert "SubscriberNotFound" in (await table.rows())[0].last_exception


async def test_a_handler_sees_who_its_message_is_and_the_headers_of_the_wire(
    broker: OutboxBroker, session: AsyncSession, table: Table
) -> None:
    seen: list[Any] = []

    @broker.subscriber("orders")
    async def handle(body: dict[str, int], message: Message, its_broker: Broker) -> None:
        seen.append((message, its_broker))

    await broker.start()
    row_id = await broker.publish(
        {"n": 1},
        queue="orders",
        session=session,
        key="k",
        headers={"traceparent": "00-ab", "x": ""},
        correlation_id="c",
        idempotency_key="i",
        timer_id="t",
    )
    ((created_at,),) = (await session.execute(text("SELECT created_at FROM outbox"))).all()
    await session.commit()
    await eventually(lambda: seen)
    message, its_broker = seen[0]
    assert its_broker is broker
    assert (message.row_id, message.queue, message.key, message.idempotency_key) == (row_id, "orders", "k", "i")
    assert (message.message_id, message.correlation_id, message.content_type) == ("i", "c", "application/json")
    assert (message.attempts_count, message.deliveries_count, message.created_at) == (0, 1, created_at)
    assert message.row.timer_id == "t"
    assert message.row.acquired_at >= created_at
    assert message.headers == {
        "idempotency-key": "i",
        "outbox-id": str(row_id),
        "outbox-queue": "orders",
        "outbox-created-at": created_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "correlation_id": "c",
        "content-type": "application/json",
        "traceparent": "00-ab",
        "x": "",
    }


async def test_consume_middlewares_run_and_their_failure_is_the_messages(
    make_broker: MakeBroker, session: AsyncSession, table: Table, inbox: Inbox
) -> None:
    class Gate(BaseMiddleware):
        async def consume_scope(self, call_next: Any, msg: Any) -> Any:
            if msg.headers.get("bad"):
                raise PermissionError("not you")
            return await call_next(msg)

    broker = make_broker(middlewares=[Gate])

    @broker.subscriber("orders", ack_policy=AckPolicy.REJECT_ON_ERROR)
    async def handle(body: str) -> None:
        inbox.add(body)

    await broker.start()
    await broker.publish("bad", queue="orders", session=session, headers={"bad": "1"})
    await broker.publish("good", queue="orders", session=session)
    await session.commit()
    assert await inbox.wait_for(1) == ["good"]
    await eventually(lambda: table.count("last_exception = 'PermissionError: not you' AND failed_at IS NOT NULL"))


async def test_what_a_stacked_publisher_writes_comes_at_least_once_and_with_its_headers(
    broker: OutboxBroker, session: AsyncSession, inbox: Inbox, table: Table
) -> None:
    @broker.subscriber("in")
    @broker.publisher("out", headers={"of": "publisher", "both": "publisher"})
    async def handle(body: int) -> Any:
        return Response(body + 1, headers={"both": "response"})

    @broker.subscriber("out")
    async def receive(body: int, message: Message) -> None:
        inbox.add((body, message.headers["of"], message.headers["both"]))

    await broker.start()
    await broker.publish(1, queue="in", session=session)
    await session.commit()
    assert await inbox.wait_for(1) == [(2, "publisher", "response")]
    await eventually(table.is_empty)


async def test_g11_a_handler_that_fails_for_one_message_never_stalls_others(
    broker: OutboxBroker, session: AsyncSession, inbox: Inbox, table: Table
) -> None:
    class NotAnException(BaseException):
        pass

    failures = [
        ValueError(),
        NotAnException(),
        asyncio.CancelledError(),
        BaseExceptionGroup("many", [NotAnException()]),
    ]

    @broker.subscriber("orders", retry_strategy=ConstantRetry(delay_seconds=0.01, max_attempts=4))
    async def handle(body: int) -> None:
        if body < 0:
            raise failures[-1 - body]
        inbox.add(body)

    await broker.start()
    for batch in range(5):
        await broker.publish_batch(-1, -2, -3, -4, *range(batch * 10, batch * 10 + 10), queue="orders", session=session)
        await session.commit()
    await inbox.wait_for(50)
    assert set(inbox.counts) == set(range(50))
    assert set(inbox.counts.values()) == {1}
    await eventually(lambda: _is(table.count("failure_reason = 'retries_exhausted' AND attempts_count = 4"), 20))
    assert await table.count() == 20


async def test_g11_a_strategy_with_a_bug_neither_loses_the_row_nor_stops_the_worker(
    broker: OutboxBroker, session: AsyncSession, inbox: Inbox, table: Table
) -> None:
    class Buggy:
        def get_next_attempt_delay(self, **_: Any) -> float | None:
            raise ZeroDivisionError

    @broker.subscriber("orders", retry_strategy=Buggy())
    async def handle(body: int) -> None:
        if body == 0:
            raise ValueError
        inbox.add(body)

    await broker.start()
    await broker.publish_batch(0, 1, queue="orders", session=session)
    await session.commit()
    assert await inbox.wait_for(1) == [1]
    await eventually(lambda: table.count("next_attempt_at IS NOT NULL AND attempts_count = 1"))


async def test_a_subscriber_added_after_the_start_works_once_it_is_started(
    broker: OutboxBroker, session: AsyncSession, inbox: Inbox
) -> None:
    await broker.start()
    subscriber = broker.subscriber("late")

    @subscriber
    async def handle(body: int) -> None:
        inbox.add(body)

    await broker.publish(1, queue="late", session=session)
    await session.commit()
    await subscriber.start()
    assert await inbox.wait_for(1) == [1]


async def test_a_broker_starts_again_after_a_stop(broker: OutboxBroker, session: AsyncSession, inbox: Inbox) -> None:
    @broker.subscriber("orders")
    async def handle(body: int) -> None:
        inbox.add(body)

    for number in range(3):
        async with broker:
            assert await broker.ping(5)
            assert not broker.running, "entering only connects"
            await broker.start()
            await broker.publish(number, queue="orders", session=session)
            await session.commit()
            await inbox.wait_for(number + 1)
        assert not broker.running
    assert inbox.bodies == [0, 1, 2]


async def test_a_message_of_a_queue_waits_for_its_time(
    broker: OutboxBroker, session: AsyncSession, inbox: Inbox, table: Table
) -> None:
    @broker.subscriber("orders")
    async def handle(body: str) -> None:
        inbox.add(body)

    await broker.start()
    await broker.publish("later", queue="orders", session=session, activate_in=timedelta(hours=1))
    await broker.publish("past", queue="orders", session=session, activate_at=datetime(2000, 1, 1, tzinfo=UTC))
    await broker.publish("now", queue="orders", session=session)
    await session.commit()
    assert sorted(await inbox.wait_for(2)) == ["now", "past"]
    await eventually(lambda: _is(table.count(), 1))
    assert await table.count("payload = convert_to('later', 'UTF8') AND deliveries_count = 0") == 1


async def test_a_brokers_own_engine_may_be_in_autocommit(
    make_broker: MakeBroker, engine: AsyncEngine, database_url: str, table: Table, inbox: Inbox
) -> None:
    """What it does beside the publisher's transaction has transactions of its own where it needs them."""
    own = create_async_engine(database_url, isolation_level="AUTOCOMMIT")
    broker = make_broker(own)

    @broker.publisher("results")
    @broker.subscriber("orders", retry_strategy=NoRetry())
    async def handle(body: int) -> int:
        inbox.add(body)
        if body == 1 and len(inbox.bodies) < 3:
            raise ValueError
        return body

    await broker.start()
    async with AsyncSession(engine) as session, session.begin():
        await broker.publish_batch(1, 2, queue="orders", session=session)
    await eventually(lambda: table.count("failed_at IS NOT NULL"))
    await eventually(lambda: table.count("queue = 'results'"))
    assert await broker.dead_letters.replay(queue="orders") == 1
    await inbox.wait_for(3)
    await eventually(lambda: table.query("SELECT 1 AS n FROM outbox WHERE queue = 'results' HAVING count(*) = 2"))
    await broker.stop()
    await own.dispose()
