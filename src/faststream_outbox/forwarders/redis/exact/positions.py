"""Knows the markers of the shards whose rows a lane sends, and looks at them where it is in doubt."""

import asyncio
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from faststream_outbox._engine.health import Log
from faststream_outbox._store.positions import PositionStore, Takeover
from faststream_outbox._store.protocol import HandOver
from faststream_outbox._values.position import Move, Producer
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard
from faststream_outbox.forwarders.doubt import LOOK_SECONDS, InDoubtError, mark_of, marks_of
from faststream_outbox.forwarders.redis.client import RedisClient
from faststream_outbox.forwarders.redis.exact.marker import Element, Finding, ShardMarker, first_token, judge, name_of
from faststream_outbox.forwarders.redis.exact.script import Contradicted, answer_of, look
from faststream_outbox.forwarders.redis.verdicts import RedisAnswerError

FRESH_SECONDS = 5.0
"""Over a connection that is not older, a marker that lacks something is believed. An older one may be to a server that
another has replaced."""

PRODUCER_BITS = 63

LOST = "the marker is older than what was acknowledged, as after a fail-over to a replica that lacked it"
GONE = "the marker is gone: it was deleted, evicted or flushed, or this is another server or database"
CUT = "the marker does not reach back to what the position table knows, as after a fail-over of PostgreSQL"


class DoubtfulServerError(InDoubtError):
    """A marker lacks something. Before that is believed, it is looked at again, over a new connection."""


@dataclass
class Markers:
    """What the lanes of a forwarder know of its shards.

    Args:
        forwarder: Gives its name.
        store: The position table.
        log: Told where a loss or a repeat is possible.
    """

    forwarder: Callable[[], str]
    store: PositionStore
    log: Log
    maybe_repeated: int = 0
    """How often it could not be known whether messages in doubt were taken."""
    maybe_lost: int = 0
    """How often Redis has lost what it had acknowledged, or may have."""
    by_shard: dict[Shard, ShardMarker] = field(default_factory=dict)
    """Those that no hand-over has in hand, and that this process has written last."""
    producers: dict[Shard, Producer] = field(default_factory=dict)
    """The names of markers, as the position table has them. They do not change, unless a person deletes them there."""
    doubted: dict[Shard, int] = field(default_factory=dict)
    """The tokens of shards that this process had written last when their marker was first seen to lack something."""
    believed: dict[Shard, tuple[int, int | None]] = field(default_factory=dict)
    """What was counted already: the token of the position table, and that of the marker."""


class LaneMarkers:
    """The shards that a lane has in hand.

    Args:
        markers: Of its forwarder.
    """

    def __init__(self, markers: Markers) -> None:
        self._markers = markers
        self._in_hand: dict[Shard, ShardMarker] = {}
        self._shards: Mapping[int, Shard] = {}
        self._rows: Sequence[OutboxRow] = ()
        self._why: dict[Shard, Exception] = {}
        """Why no rows of a shard can be sent now."""
        self.client: RedisClient | None = None
        """The connection that the lane has now."""

    @property
    def forwarder(self) -> str:
        return self._markers.forwarder()

    def begin(self) -> None:
        # What an earlier hand-over has left was cut off: its shards are looked at again.
        self._in_hand, self._shards, self._rows, self._why = {}, {}, (), {}

    async def look(self, taken: HandOver) -> Collection[int]:
        self.begin()
        self._rows = taken.rows
        self._shards = {row.id: shard for row, shard in zip(taken.rows, taken.row_shards(), strict=True)}
        doubtful: list[Shard] = []
        for shard in dict.fromkeys(self._shards.values()):
            marker = self._markers.by_shard.pop(shard, None)
            if marker is not None and marker.known == taken.tokens.get(shard) and marker.run == taken.run:
                marker.is_last = True
                self._in_hand[shard] = marker
            else:
                doubtful.append(shard)
        if not doubtful:
            return ()
        await self._take_up(doubtful, taken)
        there = await self._look([shard for shard in doubtful if shard in self._in_hand])
        for shard, elements in there.items():
            await self._learn(shard, elements)
        return [row.id for row in taken.rows if self.is_found(row)]

    async def _take_up(self, shards: Sequence[Shard], taken: HandOver) -> None:
        """Find the markers of shards, and begin those of which nothing was sent."""
        tokens = {shard: taken.tokens.get(shard) for shard in shards}
        takeovers = [
            # Where there is a token, it stays: this is only to learn the producer.
            Takeover(shard, None, first_token(), Producer(secrets.randbits(PRODUCER_BITS), 0))
            if token is None
            else Takeover(shard, token, token)
            for shard, token in tokens.items()
            if token is None or shard not in self._markers.producers
        ]
        held = await self._markers.store.take_over(self.forwarder, takeovers) if takeovers else {}
        self._markers.producers.update({shard: one.producer for shard, one in held.items()})
        tokens |= {shard: one.token for shard, one in held.items()}
        for takeover in takeovers:
            if takeover.shard not in held:
                self._why[takeover.shard] = InDoubtError("another process has written the shard meanwhile")
                del tokens[takeover.shard]
        for shard, token in tokens.items():
            if token is not None:
                name = name_of(self._markers.producers[shard].id)
                self._in_hand[shard] = ShardMarker(name, token, taken.run)

    async def _look(self, shards: Sequence[Shard]) -> Mapping[Shard, Sequence[Element]]:
        """Return what markers have that are not the expected ones. It asks Redis alone, so all errors here are its."""
        if not shards:
            return {}
        answers: list[Any] = []
        there: dict[Shard, Sequence[Element]] = {}
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._asking().evaluate([look(self._in_hand[shard]) for shard in shards], answers)
            for shard, answer in zip(shards, answers, strict=True):
                if isinstance(answer, RedisAnswerError):
                    self.give_up(shard, answer)
                elif isinstance(found := answer_of(answer), Contradicted):
                    there[shard] = found.there
        except Exception as error:  # noqa: BLE001 - or a time-out
            for shard in shards:
                self.give_up(shard, error)
            return {}
        return there

    async def _learn(self, shard: Shard, there: Sequence[Element]) -> None:
        """Take over what the marker of a shard says."""
        marker = self._in_hand[shard]
        finding = judge(marker.known, there)
        if not finding.is_whole:
            await self._check(shard, marker)
            if shard in self._why:
                return
            self._count(shard, marker, finding)
        in_hand = {mark_of(row) for row in self._rows if self._shards[row.id] == shard}
        others = {*finding.marks}.difference(in_hand)
        alive = await self._markers.store.alive(others) if others else ()
        marker.learned(finding, in_hand, alive)

    async def _check(self, shard: Shard, marker: ShardMarker) -> None:
        """Find out whether it is sure that a marker lacks something; where it is not, its shard gets no rows for now.

        This process may have been stopped for long, and others have worked on: then the position table has another
        token by now. That is asked behind the look, since a step with what the look has seen does nothing once others
        have sent more.
        """
        if time.monotonic() - self._asking().opened_at > FRESH_SECONDS:
            self.give_up(shard, DoubtfulServerError("the marker of a shard lacks something; it is looked at again"))
            return
        held = await self._markers.store.take_over(self.forwarder, [Takeover(shard, marker.known, marker.known)])
        producer = held[shard].producer if shard in held else None
        if producer is None or name_of(producer.id) != marker.name:
            self._markers.producers.pop(shard, None)
            self.give_up(shard, InDoubtError("another process has written the shard meanwhile"))

    def _count(self, shard: Shard, marker: ShardMarker, finding: Finding) -> None:
        was_last = self._markers.doubted.pop(shard, None) == marker.known
        if self._markers.believed.get(shard) == (sight := (marker.known, finding.current)):
            return
        self._markers.believed[shard] = sight
        if not finding.is_cut:
            self._markers.maybe_lost += 1
            self._say(shard, marker, f"acknowledged messages may be lost: {GONE if finding.is_gone else LOST}")
        if finding.is_cut or (finding.is_gone and not was_last):
            self._markers.maybe_repeated += 1
            self._say(shard, marker, f"messages in doubt may be there twice: {GONE if finding.is_gone else CUT}")

    def _say(self, shard: Shard, marker: ShardMarker, what: str) -> None:
        self._markers.log(
            logging.WARNING,
            f"forwarder {self.forwarder!r}, shard {shard.number} of {shard.queue!r}, marker {marker.name!r}: {what}",
            None,
        )

    def give_up(self, shard: Shard, error: Exception) -> None:
        """Note why no more rows of a shard can be sent in this hand-over. What was taken before is settled."""
        self._why.setdefault(shard, error)
        if shard in self._in_hand:
            self._in_hand[shard].is_in_doubt = True

    def contradicted(self, shard: Shard) -> None:
        """Note that the marker was another one than expected: the next hand-over looks.

        This process may have been stopped, and not have the shard any more. So it does not go on by what it is told.
        """
        marker = self._in_hand[shard]
        if marker.is_last:
            self._markers.doubted[shard] = marker.known
        self.give_up(shard, InDoubtError("the marker of a shard is another one than expected; it is looked at"))

    def is_found(self, row: OutboxRow) -> bool:
        """Return whether a row is delivered, as its marker says."""
        marker = self._in_hand.get(self._shards[row.id])
        return marker is not None and bool(marker.found) and mark_of(row) in marker.found

    def shard_of(self, row_id: int) -> Shard:
        """Return the shard of a row."""
        return self._shards[row_id]

    def marker_of(self, shard: Shard) -> ShardMarker | None:
        """Return the marker of a shard; None where nothing of it can be sent now."""
        return None if shard in self._why else self._in_hand.get(shard)

    def why(self, shard: Shard | None) -> Exception:
        """Return why no rows of a shard can be sent now."""
        why = None if shard is None else self._why.get(shard)
        return why or InDoubtError("it is not known yet what has become of earlier messages")

    def doubt(self, row: OutboxRow) -> Exception | None:
        shard = self._shards.get(row.id)
        if shard is None or (marker := self._in_hand.get(shard)) is None or marker.is_in_doubt or self.is_found(row):
            return self.why(shard)
        return None

    def moves(self, delivered: Sequence[OutboxRow]) -> Mapping[Shard, Move]:
        rows: defaultdict[Shard, list[OutboxRow]] = defaultdict(list)
        for row in delivered:
            if (shard := self._shards.get(row.id)) in self._in_hand and shard is not None:
                rows[shard].append(row)
        moves = {}
        for shard, of_shard in rows.items():
            marker = self._in_hand[shard]
            # Marks cost as much as the rest of it, and are of use only where a look has found messages.
            token = marker.moves_to(marks_of(of_shard) if marker.alive else ())
            if token is not None:
                moves[shard] = Move(marker.known, token, {})
        return moves

    def stay_behind(self, moves: Mapping[Shard, Move], kept: Sequence[OutboxRow]) -> Mapping[Shard, Move]:
        shards = {shard for row in kept if (shard := self._shards.get(row.id)) is not None}
        behind = {}
        for shard in shards & self._in_hand.keys():
            marker = self._in_hand[shard]
            known = moves[shard].new_token if shard in moves else marker.known
            if (token := marker.stays_behind(known)) is not None:
                behind[shard] = Move(known, token, {})
        return behind

    def written(self, moves: Mapping[Shard, Move]) -> None:
        for shard, move in moves.items():
            self._in_hand[shard].moved(move.new_token)
        self._markers.by_shard.update({shard: one for shard, one in self._in_hand.items() if one.is_clear})
        self._in_hand = {}

    def _asking(self) -> RedisClient:
        if self.client is None:
            msg = "not connected"
            raise ConnectionError(msg)
        return self.client
