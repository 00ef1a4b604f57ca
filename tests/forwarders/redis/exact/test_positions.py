"""What a lane knows of its shards' markers, and whose errors it takes for whose."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import pytest

from faststream_outbox._store.memory.positions import MemoryPositions
from faststream_outbox._store.positions import Takeover
from faststream_outbox._store.protocol import HandOver
from faststream_outbox._values.position import Held, Mark, Producer
from faststream_outbox._values.shard import Shard
from faststream_outbox.forwarders.doubt import InDoubtError, mark_of
from faststream_outbox.forwarders.redis.exact.marker import END, RANDOM_BITS, mark_text, token_text
from faststream_outbox.forwarders.redis.exact.positions import LaneMarkers, Markers
from tests.forwarders.kafka.exact.lanes import SHARD, Taken
from tests.forwarders.kafka.rows import row

FIRST, SECOND, THIRD = (count << RANDOM_BITS | 7 for count in (1, 2, 3))
BEHIND = token_text(SECOND) + b" " + token_text(FIRST) + END + mark_text(row(1)) + END + mark_text(row(9))
"""Names a message of this hand-over, and one that is not in it: the position table is asked for that."""
STRANGE = token_text(THIRD) + b" " + token_text(SECOND) + END + mark_text(row(9))
"""Does not reach back to what the position table has: that is asked for it again."""


class Answers:
    """Stands where the lane's connection is: the same answer to each look, or an error."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.opened_at = float("inf")

    async def evaluate(self, calls: Sequence[Any], answers: list[Any]) -> None:
        if isinstance(self._answer, Exception):
            raise self._answer
        answers += [self._answer for _ in calls]


class Positions(MemoryPositions):
    """A position table that can be lost."""

    is_lost = False

    async def alive(self, marks: Collection[Mark]) -> Collection[Mark]:
        return await super().alive(marks) if not self.is_lost else self._fail()

    async def take_over(self, forwarder: str, takeovers: Sequence[Takeover]) -> Mapping[Shard, Held]:
        return await super().take_over(forwarder, takeovers) if not self.is_lost else self._fail()

    def _fail(self) -> Any:
        raise OSError("the database is lost")


async def lane(answer: Any) -> tuple[LaneMarkers, Positions]:
    """Return a lane that has begun its shard, and is to look at it."""
    store = Positions(lambda: {mark_of(row(9))})
    await store.take_over("f", [Takeover(SHARD, None, FIRST, Producer(7, 0))])
    markers = Markers(lambda: "f", store, lambda *_: None)
    # So that it needs nothing of the table before the look.
    markers.producers[SHARD] = Producer(7, 0)
    one = LaneMarkers(markers)
    one.client = cast("Any", Answers(answer))
    return one, store


async def look(one: LaneMarkers) -> Collection[int]:
    return await one.look(cast("HandOver", Taken([row(1), row(2)], {SHARD: FIRST})))


async def test_a_look_finds_what_is_there() -> None:
    one, _ = await lane([0, BEHIND])
    assert await look(one) == [1]
    assert isinstance(one.doubt(row(1)), InDoubtError)
    assert one.doubt(row(2)) is None


@pytest.mark.parametrize("there", [BEHIND, STRANGE], ids=["rows that wait", "a marker that lacks something"])
async def test_a_lost_database_is_not_taken_for_a_lost_redis(there: bytes) -> None:
    one, store = await lane([0, there])
    store.is_lost = True
    with pytest.raises(OSError, match="the database is lost"):
        await look(one)
    store.is_lost = False
    assert await look(one) == ([1] if there is BEHIND else [])


@pytest.mark.parametrize("answer", [ConnectionError("gone"), TimeoutError(), [0, b"no element"]], ids=repr)
async def test_what_redis_does_not_tell_keeps_its_shards_from_being_sent(answer: Any) -> None:
    one, _ = await lane(answer)
    assert await look(one) == []
    assert one.marker_of(SHARD) is None
    assert one.why(SHARD) is answer or isinstance(one.why(SHARD), ValueError)
