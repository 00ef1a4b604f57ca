"""Claims for a consumer: as many as there is room for, when there may be some, and none after a stop."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from faststream_outbox._engine.handling import fetcher as fetcher_module
from faststream_outbox._engine.handling import set_aside
from faststream_outbox._engine.handling.completer import MAX_WRITE, Completer
from faststream_outbox._engine.handling.fetcher import Fetcher
from faststream_outbox._engine.handling.leases import Leases
from faststream_outbox._engine.handling.stock import Stock
from faststream_outbox._engine.health import Health
from faststream_outbox._engine.lookout import Lookout
from faststream_outbox._engine.pacer import Pacer
from faststream_outbox._engine.rounds import Rounds
from faststream_outbox._engine.wakeups import Wakeup, Wakeups
from faststream_outbox._store.protocol import DEFAULT_BATCH_BYTES
from faststream_outbox._values.outcome import Delivered, Settlement
from faststream_outbox._values.row import OutboxRow
from tests.engine.fakes import TOKEN, Lines, ScriptedStore, Trouble, never, until
from tests.rows import make_row


class Parts:
    def __init__(self, store: ScriptedStore, leases: Leases, log: Lines) -> None:
        self.store, self.leases = store, leases
        self.health = Health("database", log)
        self.stock = Stock(2, 10)
        self.bell = Wakeup()
        self.completer = Completer(store, leases, Wakeups(), asyncio.Lock(), self.health, log=log)
        self.lookout = Lookout(store, self.health)
        self.lookout.start()
        rounds = Rounds(["orders"], 16)
        self.fetcher = Fetcher(
            "test",
            store=store,
            stock=self.stock,
            leases=leases,
            completer=self.completer,
            rounds=rounds,
            wakeup=self.bell,
            pacer=Pacer(self.bell, self.lookout, lambda: ["orders"], shortest=60.0, longest=60.0),
            lease_seconds=60.0,
            health=self.health,
        )

    @property
    def claims(self) -> int:
        return self.store.script.calls["claim"]


@pytest.fixture
async def parts(store: ScriptedStore, leases: Leases, log: Lines) -> AsyncIterator[Parts]:
    parts = Parts(store, leases, log)
    yield parts
    await parts.fetcher.stop()
    await parts.lookout.stop()


async def settled_down(parts: Parts) -> None:
    """Wait until the fetcher rests."""
    await until(lambda: parts.store.script.calls["outlook"])
    await asyncio.sleep(0.005)


async def test_rows_are_claimed_under_the_token_and_looked_after(
    parts: Parts, store: ScriptedStore, leases: Leases
) -> None:
    row_id = store.publish()
    parts.fetcher.start()
    row = await parts.stock.take()
    assert row is not None
    assert row.id == row_id
    assert row in leases
    assert store._records[row_id].token == TOKEN


async def test_no_more_are_claimed_than_there_is_room_for(parts: Parts, store: ScriptedStore) -> None:
    for _ in range(10):
        store.publish()
    parts.fetcher.start()
    await until(lambda: parts.claims)
    await asyncio.sleep(0.01)
    assert parts.claims == 1
    assert len(parts.stock.empty()) == 2


async def test_without_rows_it_rests_until_it_is_woken(parts: Parts, store: ScriptedStore) -> None:
    parts.fetcher.start()
    await settled_down(parts)
    assert parts.claims == 1
    store.publish()
    parts.bell.ring()
    await until(lambda: len(parts.stock.empty()) == 1)


async def test_a_wake_up_during_the_claim_is_not_lost(parts: Parts, store: ScriptedStore) -> None:
    store.script.hanging.add("outlook")
    parts.fetcher.start()
    await until(lambda: store.script.calls["outlook"])
    # The claim has seen nothing; the row comes before the rest.
    store.publish()
    parts.bell.ring()
    await store.script.let_go("outlook")
    await until(lambda: len(parts.stock.empty()) == 1)


async def test_nothing_is_claimed_before_the_token_is_known(parts: Parts, store: ScriptedStore, leases: Leases) -> None:
    leases.token.value = ""
    store.publish()
    parts.fetcher.start()
    for _ in range(3):
        parts.bell.ring()
        await asyncio.sleep(0.002)
    assert parts.claims == 0
    leases.token.value = TOKEN
    parts.bell.ring()
    await until(lambda: parts.claims)


async def test_nothing_is_claimed_while_outcomes_cannot_be_written(parts: Parts, store: ScriptedStore) -> None:
    store.publish()
    for number in range(MAX_WRITE):
        parts.completer.put(Settlement(make_row(number + 1000), Delivered()))
    parts.fetcher.start()
    await asyncio.sleep(0.02)
    assert parts.claims == 0
    parts.completer.start()
    await until(lambda: parts.claims)
    await parts.completer.stop()


async def test_a_failing_claim_is_made_again(parts: Parts, store: ScriptedStore, log: Lines) -> None:
    store.publish()
    store.script.failing["claim"] = Trouble("no")
    parts.fetcher.start()
    await until(lambda: parts.claims == 2)
    store.script.failing.clear()
    await until(lambda: len(parts.stock.empty()) == 1)
    assert len(log.errors) == len(log.recoveries) == 1


async def test_a_stop_waits_for_the_claim_under_way(parts: Parts, store: ScriptedStore) -> None:
    store.publish()
    store.script.hanging.add("claim")
    parts.fetcher.start()
    await until(lambda: parts.claims)
    stopping = asyncio.create_task(parts.fetcher.stop(60.0))
    await asyncio.sleep(0.005)
    assert not stopping.done()
    await store.script.let_go("claim")
    async with asyncio.timeout(2.5):
        await stopping
    assert len(parts.stock.empty()) == 1


async def test_a_row_that_becomes_due_is_claimed_without_a_wake_up(parts: Parts, store: ScriptedStore) -> None:
    from datetime import timedelta

    store.publish(activate_in=timedelta(seconds=0.03))
    parts.fetcher.start()
    await until(lambda: len(parts.stock.empty()) == 1)
    assert parts.claims <= 4


async def test_it_starts_again_after_a_stop(parts: Parts, store: ScriptedStore) -> None:
    parts.fetcher.start()
    await settled_down(parts)
    await parts.fetcher.stop()
    await parts.lookout.stop()
    assert await parts.stock.room() == 0
    store.publish()
    parts.fetcher.start()
    await until(lambda: len(parts.stock.empty()) == 1)


async def test_rows_of_a_claim_whose_answer_was_lost_are_given_back(
    parts: Parts, store: ScriptedStore, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_claim = store.claim

    async def claim_and_lose_the_answer(*args: Any, **options: Any) -> list[OutboxRow]:
        await real_claim(*args, **options)
        monkeypatch.setattr(store, "claim", real_claim)
        raise Trouble("the connection broke")

    monkeypatch.setattr(store, "claim", claim_and_lose_the_answer)
    ids = {store.publish(), store.publish()}
    parts.fetcher.start()
    await until(lambda: len(leases) == 2)
    assert set(leases.ids) == ids
    assert {row.deliveries_count for row in store.rows} == {1}


async def test_what_a_claim_has_left_out_for_its_bytes_is_claimed_without_a_rest(
    parts: Parts, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rest(*, found: bool) -> None:
        await never()

    monkeypatch.setattr(parts.fetcher._pacer, "rest", rest)
    ids = [store.publish(payload=bytes(DEFAULT_BATCH_BYTES * 5 // 8)) for _ in range(2)]
    parts.fetcher.start()
    await until(lambda: parts.claims == 2)
    taken = [await parts.stock.take() for _ in ids]
    assert sorted(row.id for row in taken if row) == ids


async def test_upkeep_has_a_connection_from_the_first_row_on(parts: Parts, store: ScriptedStore) -> None:
    parts.fetcher.start()
    await settled_down(parts)
    assert not store.is_reserved
    store.publish()
    parts.bell.ring()
    assert await parts.stock.take() is not None
    assert store.is_reserved


async def test_of_a_queue_of_which_too_much_is_set_aside_nothing_is_claimed(
    parts: Parts, store: ScriptedStore, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_aside, "MOST_SET_ASIDE", 1)
    monkeypatch.setattr(fetcher_module, "FULL_SECONDS", 0.001)
    row = make_row(1000)
    leases.hold([row], 60.0)
    store.script.refused[row.id] = Trouble("no")
    parts.completer.put(Settlement(row, Delivered()))
    parts.completer.start()
    await until(lambda: parts.completer.full_queues)
    store.publish()
    parts.fetcher.start()
    await asyncio.sleep(0.02)
    assert parts.claims == 0
    store.script.refused.clear()
    await until(lambda: parts.claims)
    await parts.completer.stop()


async def test_rows_that_are_known_here_are_not_given_back_with_those_of_a_lost_answer(
    parts: Parts, store: ScriptedStore, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_hand = store.publish()
    parts.fetcher.start()
    assert await parts.stock.take() is not None
    real_claim = store.claim

    async def lose_the_answer(*args: Any, **options: Any) -> list[OutboxRow]:
        await real_claim(*args, **options)
        monkeypatch.setattr(store, "claim", real_claim)
        raise Trouble("the connection broke")

    monkeypatch.setattr(store, "claim", lose_the_answer)
    other = store.publish()
    parts.bell.ring()
    await until(lambda: other in leases.ids)
    assert store._records[in_hand].token == TOKEN
    assert store._records[in_hand].row.deliveries_count == 1


async def test_what_rings_while_a_claim_is_on_its_way_back_is_not_lost(
    parts: Parts, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_claim = store.claim

    async def claim_too_early(*args: Any, **options: Any) -> list[OutboxRow]:
        monkeypatch.setattr(store, "claim", real_claim)
        rows = await real_claim(*args, **options)
        store.publish()
        parts.bell.ring()
        return rows

    monkeypatch.setattr(store, "claim", claim_too_early)
    parts.fetcher.start()
    await until(lambda: len(parts.stock.empty()) == 1)
