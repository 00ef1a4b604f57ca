"""The positions of forwarders that send exactly once."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from faststream_outbox._store.positions import NewParts, Takeover
from faststream_outbox._values.position import Held, Mark, Move, Part, Position
from faststream_outbox._values.shard import Shard


class MemoryPositions:
    """The position table in memory.

    Args:
        alive: Gives the messages that are in the outbox, but for dead letters.
    """

    def __init__(self, alive: Callable[[], Collection[Mark]]) -> None:
        self._alive = alive
        self._held: dict[tuple[str, Shard], Held] = {}

    async def take_over(self, forwarder: str, takeovers: Sequence[Takeover]) -> Mapping[Shard, Held]:
        taken = {}
        for shard, seen, token, producer in takeovers:
            held = self._held.get((forwarder, shard))
            if held is None and producer is not None:
                held = Held(token, producer, {})
            elif held is None or held.token != seen:
                continue
            taken[shard] = self._held[forwarder, shard] = replace(held, token=token)
        return taken

    async def open(self, forwarder: str, new_parts: Sequence[NewParts]) -> Mapping[Shard, Collection[Part]]:
        begun: dict[Shard, Collection[Part]] = {}
        for shard, token, ends in new_parts:
            held = self._held[forwarder, shard]
            missing = ends.keys() - held.positions.keys()
            if held.token == token and missing:
                positions = {**held.positions, **{part: Position(0, ends[part] - 1) for part in missing}}
                self._held[forwarder, shard] = replace(held, positions=positions)
                begun[shard] = missing
        return begun

    async def alive(self, marks: Collection[Mark]) -> Collection[Mark]:
        return {*marks} & {*self._alive()}

    def tokens(self, forwarder: str, shards: Sequence[Shard]) -> dict[Shard, int]:
        """Return who has written these shards last."""
        return {shard: held.token for shard in shards if (held := self._held.get((forwarder, shard)))}

    def move(self, forwarder: str, moves: Mapping[Shard, Move]) -> None:
        """Move positions, of which nobody else has the shards now."""
        for shard, (_, new_token, positions) in moves.items():
            held = self._held[forwarder, shard]
            self._held[forwarder, shard] = replace(held, token=new_token, positions={**held.positions, **positions})
