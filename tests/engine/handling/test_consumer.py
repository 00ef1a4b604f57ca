"""Workers: as many as allowed, whatever handlers do, and every row has an outcome in the end."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from faststream_outbox._engine import service as service_module
from faststream_outbox._engine.handling.consumer import Consumer
from faststream_outbox._engine.runtime import Runtime
from faststream_outbox._store.memory.store import MemoryStore
from faststream_outbox._values.outcome import Dead, Delivered, Outcome, Released, Retry
from faststream_outbox._values.row import OutboxRow
from tests.engine.fakes import Lines, ScriptedStore, Trouble, never, swallow_a_cancellation, until

Execute = Callable[[OutboxRow], Awaitable[Outcome]]


class Handler:
    """Counts, waits for its gate, and ends as told."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun: list[int] = []
        self.now = 0
        self.most = 0

    async def __call__(self, row: OutboxRow) -> Outcome:
        self.begun.append(row.id)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.gate.wait()
        finally:
            self.now -= 1
        return Delivered()


@pytest.fixture
async def make(runtime: Runtime) -> AsyncIterator[Callable[..., Consumer]]:
    made: list[Consumer] = []

    def make(execute: Execute, *, workers: int = 1, batch_size: int = 10, **options: Any) -> Consumer:
        values: dict[str, Any] = {"lease_seconds": 60.0, "min_interval": 1.0, "max_interval": 10.0, **options}
        consumer = runtime.consumer("test", ["orders"], execute, workers=workers, batch_size=batch_size, **values)
        made.append(consumer)
        runtime.start()
        consumer.start()
        return consumer

    yield make
    for consumer in made:
        await consumer.stop(0.0)


@pytest.fixture
async def handler() -> Handler:
    return Handler()


def outcomes(store: ScriptedStore) -> dict[int, Outcome]:
    return {row.id: outcome for row, outcome in store.settled}


async def test_every_row_is_handled_once(make: Callable[..., Consumer], handler: Handler, store: ScriptedStore) -> None:
    ids = [store.publish() for _ in range(500)]
    handler.gate.set()
    make(handler, workers=7, batch_size=50)
    await until(lambda: not store.rows)
    assert sorted(handler.begun) == ids
    assert handler.most <= 7


async def test_no_more_rows_are_worked_on_than_there_are_workers(
    make: Callable[..., Consumer], handler: Handler, store: ScriptedStore
) -> None:
    for _ in range(20):
        store.publish()
    make(handler, workers=3)
    await until(lambda: handler.now == 3)
    await asyncio.sleep(0.01)
    assert handler.most == 3
    handler.gate.set()
    await until(lambda: not store.rows)
    assert handler.most == 3


async def test_while_handlers_are_slow_other_processes_find_the_rest(
    make: Callable[..., Consumer], handler: Handler, store: ScriptedStore
) -> None:
    for _ in range(20):
        store.publish()
    make(handler, workers=3)
    await until(lambda: handler.now == 3)
    await asyncio.sleep(0.01)
    assert sum(record.token is not None for record in store._records.values()) == 3


async def test_a_second_start_starts_nothing(make: Callable[..., Consumer], handler: Handler) -> None:
    consumer = make(handler, workers=3)
    tasks = asyncio.all_tasks()
    consumer.start()
    assert asyncio.all_tasks() == tasks


async def test_it_starts_again_after_a_stop(
    make: Callable[..., Consumer], handler: Handler, store: ScriptedStore
) -> None:
    handler.gate.set()
    consumer = make(handler)
    for _ in range(5):
        await consumer.stop(0.0)
        await consumer.stop(1.0)
        store.publish()
        consumer.start()
        await until(lambda: not store.rows)


async def test_a_stop_before_the_first_start(runtime: Runtime, handler: Handler, store: ScriptedStore) -> None:
    consumer = runtime.consumer(
        "x", ["orders"], handler, workers=1, batch_size=1, lease_seconds=60.0, min_interval=1.0, max_interval=1.0
    )
    async with asyncio.timeout(2.5):
        await consumer.stop(None)
    handler.gate.set()
    store.publish()
    runtime.start()
    consumer.start()
    await until(lambda: not store.rows)
    await consumer.stop(0.0)


# How a stop ends


async def test_a_stop_lets_handlers_finish_and_gives_the_rest_back(
    make: Callable[..., Consumer], handler: Handler, store: ScriptedStore
) -> None:
    ids = [store.publish() for _ in range(6)]
    consumer = make(handler, workers=2)
    await until(lambda: handler.now == 2)
    claimed = await store.claim(consumer._fetcher._rounds.all, limit=4, lease_seconds=60, token="x")
    consumer._stock.add(claimed.rows)
    stopping = asyncio.create_task(consumer.stop(60.0))
    # The rest is given back at once, and not when the handlers have ended.
    await until(lambda: len(store.settled) == 4)
    assert outcomes(store) == {row_id: Released(started=False) for row_id in ids if row_id not in handler.begun}
    handler.gate.set()
    async with asyncio.timeout(2.5):
        await stopping
    await until(lambda: len(store.settled) == 6)
    assert {outcomes(store)[row_id] for row_id in handler.begun} == {Delivered()}
    assert len(handler.begun) == 2


async def test_what_no_worker_has_begun_is_given_back_before_a_claim_under_way_ends(
    make: Callable[..., Consumer], handler: Handler, store: ScriptedStore, runtime: Runtime
) -> None:
    store.script.hanging.add("claim")
    consumer = make(handler)
    await until(lambda: store.script.calls["claim"])
    ids = [store.publish() for _ in range(3)]
    rows, _has_more = await MemoryStore.claim(
        store, consumer._fetcher._rounds.all, limit=3, lease_seconds=60.0, token=runtime.leases.token.value
    )
    runtime.leases.hold(rows, 60.0)
    consumer._stock.add(rows)
    await until(lambda: handler.now)
    stopping = asyncio.create_task(consumer.stop(60.0))
    await until(lambda: len(store.settled) == 2)
    assert set(outcomes(store)) == set(ids[1:])
    assert not stopping.done()
    handler.gate.set()
    await store.script.let_go("claim")
    await stopping


async def test_a_stop_without_a_limit_waits_for_handlers(
    make: Callable[..., Consumer], handler: Handler, store: ScriptedStore
) -> None:
    store.publish()
    consumer = make(handler)
    await until(lambda: handler.now)
    stopping = asyncio.create_task(consumer.stop(None))
    await asyncio.sleep(0.02)
    assert not stopping.done()
    handler.gate.set()
    await stopping
    await until(lambda: not store.rows)


async def test_a_handler_that_is_cut_off_gives_its_row_back_and_the_delivery_counts(
    make: Callable[..., Consumer], handler: Handler, store: ScriptedStore, runtime: Runtime
) -> None:
    (row_id,) = [store.publish()]
    consumer = make(handler)
    await until(lambda: handler.now)
    async with asyncio.timeout(2.5):
        await consumer.stop(0.01)
    await runtime.stop(1.0)
    assert outcomes(store) == {row_id: Released(started=True)}
    (row,) = store.rows
    assert (row.deliveries_count, row.attempts_count, row.acquired_at) == (1, 0, None)


async def test_rows_of_a_claim_that_ends_during_the_stop_are_given_back(
    make: Callable[..., Consumer], handler: Handler, store: ScriptedStore, runtime: Runtime
) -> None:
    store.publish()
    store.script.hanging.add("claim")
    consumer = make(handler)
    await until(lambda: store.script.calls["claim"])
    stopping = asyncio.create_task(consumer.stop(60.0))
    await asyncio.sleep(0.005)
    await store.script.let_go("claim")
    async with asyncio.timeout(2.5):
        await stopping
    await runtime.stop(1.0)
    assert handler.begun == []
    (row,) = store.rows
    assert (row.deliveries_count, row.acquired_at) == (0, None)


async def test_everyone_who_stops_waits_for_the_end(
    make: Callable[..., Consumer], handler: Handler, store: ScriptedStore
) -> None:
    store.publish()
    consumer = make(handler)
    await until(lambda: handler.now)
    stops = [asyncio.create_task(consumer.stop(60.0)) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert not any(stop.done() for stop in stops)
    handler.gate.set()
    async with asyncio.timeout(2.5):
        await asyncio.gather(*stops)


async def test_a_cancelled_stop_leaves_no_worker_and_no_row(
    make: Callable[..., Consumer], handler: Handler, store: ScriptedStore, runtime: Runtime
) -> None:
    store.publish()
    consumer = make(handler, workers=3)
    await until(lambda: handler.now)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await consumer.stop(None)
    await until(lambda: all(task.done() for task in consumer._tasks))
    await runtime.stop(1.0)
    (row,) = store.rows
    assert row.acquired_at is None


async def test_a_stop_before_the_token_is_known_is_prompt(
    make: Callable[..., Consumer], handler: Handler, store: ScriptedStore, runtime: Runtime
) -> None:
    store.script.failing["*"] = Trouble("no database")
    consumer = make(handler)
    await until(lambda: store.script.calls["listen"])
    async with asyncio.timeout(1):
        await consumer.stop(60.0)
        await runtime.stop(60.0)


async def test_a_hanging_claim_does_not_keep_a_stop_beyond_its_grace(
    make: Callable[..., Consumer], handler: Handler, store: ScriptedStore
) -> None:
    store.script.hanging.add("claim")
    consumer = make(handler)
    await until(lambda: store.script.calls["claim"])
    async with asyncio.timeout(2.5):
        await consumer.stop(0.05)


async def test_claims_and_handlers_share_one_grace(
    make: Callable[..., Consumer], handler: Handler, store: ScriptedStore
) -> None:
    store.publish()
    consumer = make(handler, workers=2)
    await until(lambda: handler.now)
    store.script.hanging.add("claim")
    consumer._fetcher._wakeup.ring()
    await until(lambda: "claim" in store.script.hanging and store.script.calls["claim"] > 1)
    began = time.monotonic()
    await consumer.stop(1.0)
    # Not twice as long.
    assert 0.99 < time.monotonic() - began < 1.9


# What handlers and execute may do


async def test_a_handler_that_ignores_its_cancellation_once_ends_its_worker_all_the_same(
    make: Callable[..., Consumer], store: ScriptedStore
) -> None:
    async def stubborn(row: OutboxRow) -> Outcome:
        try:
            await never()
        except asyncio.CancelledError:
            return Delivered()
        return Dead("never")

    store.publish()
    consumer = make(stubborn)
    await until(lambda: consumer._stock._busy)
    async with asyncio.timeout(2.5):
        await consumer.stop(0.01)
    await until(lambda: not store.rows)


async def test_a_handler_that_never_ends_does_not_keep_the_stop(
    make: Callable[..., Consumer], store: ScriptedStore, log: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "CANCEL_SECONDS", 0.02)
    gate = asyncio.Event()

    async def stubborn(row: OutboxRow) -> Outcome:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue
        return Delivered()

    row_id = store.publish()
    consumer = make(stubborn)
    await until(lambda: consumer._stock._busy)
    async with asyncio.timeout(2.5):
        await consumer.stop(0.01)
    assert log.errors == ["test: 1 handlers go on although they were cancelled; the stop does not wait"]
    # It is still worked on: nobody else may get it.
    assert store.settled == []
    assert store._records[row_id].token is not None
    gate.set()
    await asyncio.wait(consumer._tasks)


@pytest.mark.parametrize("error", [Trouble("bug"), asyncio.CancelledError(), RuntimeError("StopIteration")])
async def test_an_execute_that_raises_costs_neither_worker_nor_row(
    make: Callable[..., Consumer], store: ScriptedStore, log: Lines, error: BaseException
) -> None:
    bad = store.publish()

    async def execute(row: OutboxRow) -> Outcome:
        if row.id == bad:
            raise error
        return Delivered()

    make(execute)
    await until(lambda: bad in outcomes(store))
    retry = outcomes(store)[bad]
    assert isinstance(retry, Retry)
    # It does not come back at once, again and again.
    assert retry.delay > 0.1
    good = store.publish()
    await until(lambda: outcomes(store).get(good) == Delivered())
    assert store._records[bad].row.attempts_count == 1
    assert len(log.errors) == 1


async def test_a_library_that_leaves_its_own_cancellation_behind_does_not_end_the_worker(
    make: Callable[..., Consumer], store: ScriptedStore
) -> None:
    async def execute(row: OutboxRow) -> Outcome:
        await swallow_a_cancellation()
        return Delivered()

    store.publish()
    consumer = make(execute)
    await until(lambda: not store.rows)
    assert not any(task.done() for task in consumer._tasks)
    assert not any(task.cancelling() for task in consumer._tasks)


async def test_no_exception_of_a_worker_goes_unseen(make: Callable[..., Consumer], store: ScriptedStore) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    async def execute(row: OutboxRow) -> Outcome:
        try:
            await never()
        except asyncio.CancelledError:
            raise Trouble("while it was cancelled") from None
        return Delivered()

    row_id = store.publish()
    consumer = make(execute)
    await until(lambda: consumer._stock._busy)
    await consumer.stop(0.0)
    await until(lambda: outcomes(store))
    assert outcomes(store) == {row_id: Released(started=True)}
    consumer._tasks.clear()
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


async def test_a_row_whose_lease_was_lost_while_it_waited_is_not_handled(
    make: Callable[..., Consumer], handler: Handler, store: ScriptedStore, runtime: Runtime
) -> None:
    consumer = make(handler)
    await until(lambda: runtime.leases.token.value)
    ids = [store.publish() for _ in range(3)]
    where = consumer._fetcher._rounds.all
    # At once, so that the consumer's own fetcher does not come in between.
    rows, _has_more = await MemoryStore.claim(
        store, where, limit=3, lease_seconds=60.0, token=runtime.leases.token.value
    )
    runtime.leases.hold(rows, 60.0)
    runtime.leases.let_go(rows[1])
    handler.gate.set()
    consumer._stock.add(rows)
    await until(lambda: len(store.settled) == 2)
    assert handler.begun == [ids[0], ids[2]]
    assert consumer._stock._busy == 0


async def test_a_handler_that_outlives_its_lease_keeps_it(
    make: Callable[..., Consumer], handler: Handler, store: ScriptedStore
) -> None:
    store.publish()
    make(handler, lease_seconds=0.06)
    await until(lambda: len(store.renewals) >= 3)
    handler.gate.set()
    await until(lambda: not store.rows)
    assert len(handler.begun) == 1


async def test_outcomes_that_cannot_be_written_stop_the_claiming(
    make: Callable[..., Consumer], handler: Handler, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faststream_outbox._engine.handling.completer.MAX_WRITE", 20)
    for _ in range(300):
        store.publish()
    store.script.failing["settle"] = Trouble("no dead-letter table")
    handler.gate.set()
    make(handler, workers=2, batch_size=5)
    await until(lambda: len(handler.begun) >= 20)
    await asyncio.sleep(0.05)
    assert len(handler.begun) <= 20 + 2 + 5
    store.script.failing.clear()
    await until(lambda: not store.rows)
    assert len(handler.begun) == 300
