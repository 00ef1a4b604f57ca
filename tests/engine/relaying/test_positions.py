"""When a lane asks a destination that takes each row once where it stands."""

from collections.abc import Callable, Collection, Mapping, Sequence

from faststream_outbox._engine.relaying.lane import Lane
from faststream_outbox._engine.runtime import Runtime
from faststream_outbox._store.protocol import HandOver
from faststream_outbox._values.position import Move
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard
from tests.engine.fakes import ScriptedDestination, ScriptedStore, until


class Notes:
    """Positions that note what they are asked."""

    forwarder = "relay"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def begin(self) -> None:
        self.calls.append("begin")

    async def look(self, taken: HandOver) -> Collection[int]:
        self.calls.append("look")
        return []

    def moves(self, delivered: Sequence[OutboxRow]) -> Mapping[Shard, Move]:
        self.calls.append("moves")
        return {}

    def written(self, moves: Mapping[Shard, Move]) -> None:
        self.calls.append("written")


async def test_each_hand_over_begins_before_it_looks(
    make: Callable[..., Lane], runtime: Runtime, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    # One without rows to send does not look, and must not speak of the hand-over before it.
    notes = Notes()
    lane = make()
    lane._positions = notes
    store.publish(key="k")
    runtime.start()
    lane.start()
    await until(lambda: "written" in notes.calls)
    assert notes.calls == ["begin", "look", "moves", "written"]
