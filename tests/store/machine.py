"""A store and a small model of it go through the same random life, and must agree at every step."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from faststream_outbox._store.protocol import RESCUED_AT_ONCE
from faststream_outbox._values.dead_letter import Selection
from faststream_outbox._values.draft import Draft
from faststream_outbox._values.outcome import Dead, Deferred, Delivered, Outcome, Released, Retry, Settlement
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.schema import SHARDS
from tests.store.suite import LONG, ME, OTHER, PAST, Failed, Subject, draft, ids, shards

QUEUES = st.sampled_from(["a", "a", "b"])
TOKENS = st.sampled_from([ME, OTHER])
KEYS = st.sampled_from([None, "k", "l"])
BREADTHS = st.sampled_from([1, 3, SHARDS])
SLOTS = st.sampled_from([7, 8])
OUTCOMES = st.sampled_from(
    [
        *(Delivered(), Retry(0), Retry(LONG), Dead("rejected"), Dead("rejected", holds_key=True)),
        *(Released(), Released(started=True)),
        *(Deferred(7), Deferred(8), Deferred(7, 0.0), Deferred(7, LONG)),
    ]
)


@dataclass
class Model:
    """A row, with time told apart only as "past" and "future"; "" stands for none."""

    message: Draft
    due: str = ""
    token: str = ""
    attempts: int = 0
    deliveries: int = 0
    dead: bool = False
    holds_key: bool = False
    was_tried: bool = False
    slot: int | None = None
    """While it is deferred until its slot, or is made due with all of it."""

    @property
    def is_free(self) -> bool:
        return not self.token and not self.dead and self.due != "future"

    @property
    def holds_back(self) -> bool:
        return self.holds_key if self.dead else self.was_tried and self.due != ""

    def free(self, due: str = "", slot: int | None = None) -> None:
        self.due, self.token, self.slot = due, "", slot


class StoreMachine(RuleBasedStateMachine):
    """Set ``open_subject`` in a subclass."""

    open_subject: Callable[[], AbstractAsyncContextManager[Subject]]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.opened = type(self).open_subject()
        self.subject = self.run(self.opened.__aenter__())
        self.model: dict[int, Model] = {}
        self.handed_out: list[OutboxRow] = []

    def teardown(self) -> None:
        self.run(self.opened.__aexit__(None, None, None))
        self.runner.close()

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    # --- publishers

    @initialize(keys=st.lists(KEYS, min_size=4, max_size=8))
    def backlog(self, keys: list[str | None]) -> None:
        """Begin with rows: else nearly all that happens happens to none."""
        for key in keys:
            self.publish(queue="a", key=key, options={}, due="", count=1, fails=False)

    @rule(
        queue=QUEUES,
        key=KEYS,
        options=st.fixed_dictionaries({}, optional={k: st.just("same") for k in ("idempotency_key", "timer_id")}),
        due=st.sampled_from(["", "past", "future"]),
        count=st.integers(1, 3),
        fails=st.booleans(),
    )
    def publish(self, *, queue: str, key: str | None, options: Any, due: str, count: int, fails: bool) -> None:
        times: dict[str, dict[str, Any]] = {
            "": {},
            "past": {"activate_at": PAST},
            "future": {"activate_at": PAST.replace(year=2100)},
        }
        messages = [draft(queue, key=key, **options, **times[due]) for _ in range(count)]
        written = self.run(self._publish(messages, fails))
        expected = []
        for message in messages:
            live = [model.message for model in self.model.values() if self._is_live(model) and not fails]
            if not any(self._are_duplicates(message, other) for other in [*live, *expected]):
                expected.append(message)
        if not fails:
            assert len(written) == len(expected)
            assert all(row_id > max(self.model, default=0) for row_id in written)
            self.model |= {row_id: Model(m, due) for row_id, m in zip(written, expected, strict=True)}

    async def _publish(self, messages: list[Draft], fails: bool) -> list[int]:
        written: list[int] = []
        with suppress(Failed):
            async with self.subject.transaction() as session:
                if len(messages) > 1:
                    written = await self.subject.writer.insert_many(session, messages)
                else:
                    row_id = await self.subject.writer.insert(session, messages[0])
                    written = [] if row_id is None else [row_id]
                if fails:
                    raise Failed
        return written

    def _is_live(self, model: Model) -> bool:
        return not model.dead or model.holds_key or self.subject.parks

    @staticmethod
    def _are_duplicates(one: Draft, other: Draft) -> bool:
        same_key = one.deduplicate and other.deduplicate and one.idempotency_key == other.idempotency_key
        same_timer = one.timer_id is not None and one.timer_id == other.timer_id
        return one.queue == other.queue and (same_key or same_timer)

    @rule(queue=QUEUES)
    def cancel_timer(self, queue: str) -> None:
        timers = [
            row_id
            for row_id, model in self.model.items()
            if model.message.queue == queue and model.message.timer_id and not model.token and not model.dead
        ]
        assert self.run(self._cancel(queue)) == bool(timers)
        for row_id in timers:
            del self.model[row_id]

    async def _cancel(self, queue: str) -> bool:
        async with self.subject.transaction() as session:
            return await self.subject.writer.cancel_timer(session, queue=queue, timer_id="same")

    # --- handlers

    @rule(queue=QUEUES, token=TOKENS, expired=st.booleans())
    def claim(self, queue: str, token: str, expired: bool) -> None:
        seconds = 0 if expired else LONG
        rows = self.run(self.subject.store.claim(shards(queue), limit=100, lease_seconds=seconds, token=token)).rows
        expected = [row_id for row_id, m in self.model.items() if m.message.queue == queue and m.is_free]
        assert ids(rows) == expected
        for row in rows:
            model = self.model[row.id]
            model.due, model.token, model.deliveries = "past" if expired else "future", token, model.deliveries + 1
            assert (row.attempts_count, row.deliveries_count) == (model.attempts, model.deliveries)
        self.handed_out += rows

    @precondition(lambda self: self.handed_out)
    @rule(data=st.data(), token=TOKENS)
    def settle(self, data: st.DataObject, token: str) -> None:
        rows = data.draw(st.lists(st.sampled_from(self.handed_out), min_size=1, max_size=4, unique_by=lambda r: r.id))
        settlements = [Settlement(row, data.draw(OUTCOMES)) for row in rows]
        self.run(self.subject.store.settle(settlements, token=token))
        for row, outcome in settlements:
            if self._is_held(row, token):
                self._apply(row.id, outcome)

    @precondition(lambda self: self.handed_out)
    @rule(data=st.data(), token=TOKENS)
    def renew(self, data: st.DataObject, token: str) -> None:
        rows = data.draw(st.lists(st.sampled_from(self.handed_out), min_size=1, max_size=4, unique_by=lambda r: r.id))
        held = {row.id for row in rows if self._is_held(row, token)}
        assert self.run(self.subject.store.renew(rows, lease_seconds=LONG, token=token)) == held
        for row_id in held:
            self.model[row_id].due = "future"

    @rule()
    def rescue(self) -> None:
        expired = [model for model in self.model.values() if model.token and model.due == "past"]
        found = self.run(self.subject.store.rescue(token=ME, suspects=frozenset()))
        assert found.freed_queues == {model.message.queue for model in expired}
        for model in expired:
            model.free("past" if model.deliveries <= RESCUED_AT_ONCE else "future")

    def _is_held(self, row: OutboxRow, token: str) -> bool:
        model = self.model.get(row.id)
        return model is not None and (model.token, model.deliveries) == (token, row.deliveries_count)

    def _apply(self, row_id: int, outcome: Outcome) -> None:
        model = self.model[row_id]
        match outcome:
            case Delivered():
                del self.model[row_id]
            case Retry(delay):
                model.attempts += 1
                model.was_tried = True
                model.free("future" if delay else "past")
            case Dead(holds_key=holds_key):
                model.attempts += 1
                model.dead = model.was_tried = True
                # A message without a key has none to hold; the engine asks for it only with a key.
                model.holds_key = holds_key
                model.free()
            case Deferred(slot, delay):
                model.was_tried = True
                if delay is None:
                    model.free("future", slot)
                else:
                    model.free("future" if delay else "past")
            case Released(started):
                model.deliveries -= not started
                model.free("past")

    # --- forwarders

    @rule(
        queue=QUEUES,
        outcomes=st.lists(OUTCOMES.filter(lambda o: not isinstance(o, Released)), max_size=6),
        breadth=BREADTHS,
    )
    def hand_over(self, queue: str, outcomes: list[Outcome], breadth: int) -> None:
        taken = self.run(self._hand_over(queue, outcomes, breadth, fails=False))
        self._check_hand_over(queue, taken)
        for row, outcome in zip(taken, outcomes, strict=False):
            self._apply(row.id, outcome)

    @rule(queue=QUEUES, outcomes=st.lists(OUTCOMES, max_size=6), breadth=BREADTHS)
    def hand_over_that_fails(self, queue: str, outcomes: list[Outcome], breadth: int) -> None:
        self._check_hand_over(queue, self.run(self._hand_over(queue, outcomes, breadth, fails=True)))

    @precondition(lambda self: any(model.slot for model in self.model.values()))
    @rule(queue=QUEUES, slot=SLOTS)
    def make_due(self, queue: str, slot: int) -> None:
        deferred = [m for m in self.model.values() if m.slot == slot and m.message.queue == queue]
        assert self.run(self.subject.store.make_due(shards(queue), slot=slot, limit=100)) == len(deferred)
        for model in deferred:
            model.free("past")

    def _check_hand_over(self, queue: str, taken: list[OutboxRow]) -> None:
        of_queue = {row_id: model for row_id, model in self.model.items() if model.message.queue == queue}
        expected = [
            row_id
            for row_id, model in of_queue.items()
            if model.is_free
            and not any(
                earlier < row_id and other.holds_back and other.message.key == model.message.key is not None
                for earlier, other in of_queue.items()
            )
        ]
        assert sorted(ids(taken)) == expected
        for key in ("k", "l"):
            of_key = [row.id for row in taken if row.key == key]
            assert of_key == sorted(of_key)

    async def _hand_over(self, queue: str, outcomes: list[Outcome], breadth: int, *, fails: bool) -> list[OutboxRow]:
        """Visit every shard of a queue once."""
        where, taken = shards(queue), []
        while where:
            with suppress(Failed):
                async with self.subject.store.hand_over(where, limit=1000, breadth=breadth) as hand_over:
                    if hand_over is None:
                        break
                    where = [shard for shard in where if shard not in hand_over.shards]
                    left = outcomes[len(taken) :]
                    taken += hand_over.rows
                    await hand_over.settle([Settlement(*pair) for pair in zip(hand_over.rows, left, strict=False)])
                    if fails:
                        raise Failed
        return taken

    # --- people

    @precondition(lambda self: any(model.holds_key for model in self.model.values()))
    @rule(key=KEYS, discards=st.booleans())
    def decide_on_held_dead_letters(self, key: str | None, discards: bool) -> None:
        held = {i: m for i, m in self.model.items() if m.holds_key and key in (None, m.message.key)}
        others = [m for m in self.model.values() if m.dead and not m.holds_key and key in (None, m.message.key)]
        if others:
            return
        letters = self.subject.dead_letters
        change = letters.discard if discards else letters.replay
        assert self.run(change(None, Selection(key=key), limit=100)) == len(held)
        for row_id, model in held.items():
            if discards:
                del self.model[row_id]
            else:
                model.attempts = model.deliveries = 0
                model.dead = model.holds_key = False
                model.free("past")

    # --- at every step

    @invariant()
    def agrees(self) -> None:
        rows, dead = self.run(self.subject.rows()), self.run(self.subject.dead())
        assert sorted(rows) == [row_id for row_id, model in self.model.items() if not model.dead]
        assert sorted(dead) == [row_id for row_id, model in self.model.items() if model.dead]
        for row_id, stored in rows.items():
            model = self.model[row_id]
            assert (stored.token or "") == model.token
            assert (stored.next_attempt_at is None) == (model.due == "")
        for row_id, row in [*((i, s.row) for i, s in rows.items()), *((i, d.row) for i, d in dead.items())]:
            model = self.model[row_id]
            assert (row.attempts_count, row.deliveries_count) == (model.attempts, model.deliveries)
            assert row.idempotency_key == model.message.idempotency_key
