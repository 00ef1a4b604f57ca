"""What a lane does about shards whose last batches are in doubt."""

from collections.abc import Collection, Mapping

from faststream_outbox._values.position import Part, Position
from faststream_outbox.forwarders.kafka.exact.leaders import MissingError, Told
from tests.forwarders.kafka.rows import row

from .lanes import SHARD, Lanes, Logs

ONE, OTHER = Part("orders", 0), Part("orders", 1)
FOREIGN = Part("elsewhere", 0)


class WithoutElsewhere(Logs):
    async def tell(self, parts: Collection[Part]) -> Mapping[Part, Told | Exception]:
        told = await super().tell(parts)
        return {part: MissingError(part) if part == FOREIGN else answer for part, answer in told.items()}


async def test_a_topic_that_is_gone_does_not_stop_a_shard_for_good() -> None:
    lanes = Lanes(WithoutElsewhere(end=100, next_sequence=3))
    await lanes.has({ONE: Position(3, 99), FOREIGN: Position(5, 20)})
    process = lanes.process()
    for _ in range(5):
        await lanes.look(process, row(1))
        book = process.book_of(SHARD)
        assert book is not None
        process.written({})
    assert book.may_send(ONE)
    assert len(lanes.log) == 1
