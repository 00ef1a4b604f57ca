"""Where forwarders stand: who has written last, and that positions move with the rows or not at all."""

from collections.abc import Mapping

from faststream_outbox._store.positions import NewParts, Takeover
from faststream_outbox._store.protocol import HandOver, Store
from faststream_outbox._values.outcome import DELIVERED, Dead, Settlement
from faststream_outbox._values.position import Mark, Move, Part, Position, Producer
from faststream_outbox._values.shard import Shard

from .subject import failing

FORWARDER = "relay"
ONE, OTHER = Part("orders", 0), Part("orders", 1)
PRODUCER = Producer(7, 0)


async def begin(store: Store, shard: Shard, token: int = 1) -> None:
    """Begin a shard with one partition, whose log ends at 100."""
    assert store.positions is not None
    held = await store.positions.take_over(FORWARDER, [Takeover(shard, None, token, PRODUCER)])
    assert (held[shard].token, held[shard].producer, held[shard].positions) == (token, PRODUCER, {})
    assert await open_(store, shard, token, {ONE: 100}) == {ONE}


async def open_(store: Store, shard: Shard, token: int, ends: Mapping[Part, int]) -> set[Part]:
    assert store.positions is not None
    begun = await store.positions.open(FORWARDER, [NewParts(shard, token, ends)])
    assert begun.keys() <= {shard}
    return {*begun.get(shard, ())}


def seen(hand_over: HandOver | None) -> int | None:
    assert hand_over is not None
    return hand_over.tokens.get(hand_over.shards[0])


class Positions:
    """The fixtures are a store with one ready row, and its shard."""

    async def test_a_hand_over_sees_who_has_written_last(self, store: Store, shard: Shard) -> None:
        async with store.hand_over([shard], limit=1, forwarder=FORWARDER) as hand_over:
            assert seen(hand_over) is None
        await begin(store, shard)
        async with store.hand_over([shard], limit=1, forwarder=FORWARDER) as hand_over:
            assert seen(hand_over) == 1
        async with store.hand_over([shard], limit=1, forwarder="another") as hand_over:
            assert seen(hand_over) is None
        async with store.hand_over([shard], limit=1) as hand_over:
            assert seen(hand_over) is None

    async def test_a_shard_is_taken_over_from_the_one_that_was_seen_alone(self, store: Store, shard: Shard) -> None:
        assert store.positions is not None
        await begin(store, shard)
        held = await store.positions.take_over(FORWARDER, [Takeover(shard, 1, 2)])
        assert (held[shard].token, held[shard].producer) == (2, PRODUCER)
        assert held[shard].positions == {ONE: Position(0, 99)}
        assert not await store.positions.take_over(FORWARDER, [Takeover(shard, 1, 3)])
        assert not await store.positions.take_over(FORWARDER, [Takeover(shard, None, 3, Producer(8, 0))])

    async def test_partitions_are_begun_by_the_one_that_has_written_last(self, store: Store, shard: Shard) -> None:
        assert store.positions is not None
        await begin(store, shard)
        await store.positions.take_over(FORWARDER, [Takeover(shard, 1, 2)])
        assert not await open_(store, shard, 1, {OTHER: 0})
        assert await open_(store, shard, 2, {ONE: 500, OTHER: 0}) == {OTHER}
        held = await store.positions.take_over(FORWARDER, [Takeover(shard, 2, 3)])
        assert held[shard].positions == {ONE: Position(0, 99), OTHER: Position(0, -1)}

    async def test_partitions_of_many_shards_are_begun_at_once(self, store: Store, shard: Shard) -> None:
        assert store.positions is not None
        other, foreign = Shard("another", 5), Shard("another", 6)
        first = [Takeover(one, None, number, PRODUCER) for number, one in enumerate([shard, other, foreign])]
        await store.positions.take_over(FORWARDER, first)
        new_parts = [
            NewParts(shard, 0, {ONE: 7}),
            NewParts(other, 1, {ONE: 8, OTHER: 9}),
            NewParts(foreign, 5, {ONE: 9}),
        ]
        begun = await store.positions.open(FORWARDER, new_parts)
        assert {one: {*parts} for one, parts in begun.items()} == {shard: {ONE}, other: {ONE, OTHER}}
        again = [Takeover(one, number, 9) for number, one in enumerate([shard, other, foreign])]
        held = await store.positions.take_over(FORWARDER, again)
        assert held[other].positions == {ONE: Position(0, 7), OTHER: Position(0, 8)}
        assert not held[foreign].positions

    async def test_positions_move_with_the_rows(self, store: Store, shard: Shard) -> None:
        assert store.positions is not None
        await begin(store, shard)
        async with store.hand_over([shard], limit=1, forwarder=FORWARDER) as hand_over:
            assert hand_over is not None
            moves = {shard: Move(1, 2, {ONE: Position(1, 100)})}
            assert not await hand_over.settle([Settlement(row, DELIVERED) for row in hand_over.rows], moves)
        async with store.hand_over([shard], limit=1, forwarder=FORWARDER) as hand_over:
            assert hand_over is None
        held = await store.positions.take_over(FORWARDER, [Takeover(shard, 2, 3)])
        assert held[shard].positions == {ONE: Position(1, 100)}

    async def test_positions_may_go_back_behind_rows_that_are_refused(self, store: Store, shard: Shard) -> None:
        assert store.positions is not None
        await begin(store, shard)
        async with store.hand_over([shard], limit=1, forwarder=FORWARDER) as hand_over:
            assert hand_over is not None
            moves = {shard: Move(1, 2, {ONE: Position(1, 100)})}
            await hand_over.settle([Settlement(row, DELIVERED) for row in hand_over.rows], moves)
            assert not await hand_over.settle((), {shard: Move(2, 3, {ONE: Position(0, 99)})})
        held = await store.positions.take_over(FORWARDER, [Takeover(shard, 3, 4)])
        assert held[shard].positions == {ONE: Position(0, 99)}

    async def test_where_the_rows_stay_the_positions_do(self, store: Store, shard: Shard) -> None:
        assert store.positions is not None
        await begin(store, shard)
        async with failing(store.hand_over([shard], limit=1, forwarder=FORWARDER)) as hand_over:
            assert hand_over is not None
            moves = {shard: Move(1, 2, {ONE: Position(1, 100)})}
            await hand_over.settle([Settlement(row, DELIVERED) for row in hand_over.rows], moves)
        async with store.hand_over([shard], limit=1, forwarder=FORWARDER) as hand_over:
            assert seen(hand_over) == 1
        held = await store.positions.take_over(FORWARDER, [Takeover(shard, 1, 2)])
        assert held[shard].positions == {ONE: Position(0, 99)}

    async def test_it_is_known_which_messages_are_still_there(self, store: Store, shard: Shard) -> None:
        assert store.positions is not None
        async with store.hand_over([shard], limit=1) as hand_over:
            assert hand_over is not None
            [row] = hand_over.rows
        there = Mark(row.id, row.idempotency_key)
        marks = {there, Mark(row.id, "another message with this id"), Mark(row.id + 1, row.idempotency_key)}
        assert {*await store.positions.alive(marks)} == {there}

    async def test_a_dead_letter_that_is_parked_is_not_there(self, store: Store, shard: Shard) -> None:
        """Or positions would wait for it, and it is never sent."""
        assert store.positions is not None
        async with store.hand_over([shard], limit=1) as hand_over:
            assert hand_over is not None
            [row] = hand_over.rows
            await hand_over.settle([Settlement(row, Dead("rejected", "no", holds_key=True))])
        assert not await store.positions.alive({Mark(row.id, row.idempotency_key)})
