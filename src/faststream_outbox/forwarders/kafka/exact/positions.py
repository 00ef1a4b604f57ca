"""Takes shards over, and finds out what is in doubt, before rows are sent."""

import asyncio
import logging
import secrets
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from faststream_outbox._engine.health import Log
from faststream_outbox._store.positions import NewParts, PositionStore, Takeover
from faststream_outbox._store.protocol import HandOver
from faststream_outbox._values.position import Mark, Move, Part, Producer
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard
from faststream_outbox.forwarders.doubt import LOOK_SECONDS, InDoubtError, mark_of, marks_of
from faststream_outbox.forwarders.kafka.exact.book import ROUTING_BITS, Route, ShardBook, routing_of
from faststream_outbox.forwarders.kafka.exact.leaders import Leaders, MissingError, Told
from faststream_outbox.forwarders.kafka.exact.look import Clear, Finding, Look, Read, Wait
from faststream_outbox.forwarders.kafka.exact.protocol import Found

TIMES_EMPTY = 3
EMPTY_SECONDS = 0.5
"""How often a log is read again that gives nothing before its end, and how long the server may take each time."""


@dataclass
class Books:
    """What the lanes of a forwarder know of its shards.

    Args:
        forwarder: Gives its name.
        store: Where positions are kept.
        log: Told where a repeat is possible.
    """

    forwarder: Callable[[], str]
    store: PositionStore
    log: Log
    maybe_repeated: int = 0
    """How often it could not be known whether a batch was in the topic."""
    has_rights: bool = False
    """Whether the user was seen to have what this takes."""
    by_shard: dict[Shard, ShardBook] = field(default_factory=dict)
    """Those that no hand-over has in hand. One that has none here is taken over."""


class _Doubt(NamedTuple):
    shard: Shard
    part: Part
    book: ShardBook
    look: Look


class LanePositions:
    """The shards that a lane has in hand.

    Args:
        books: Of its forwarder.
    """

    def __init__(self, books: Books) -> None:
        self._books = books
        self._in_hand: dict[Shard, ShardBook] = {}
        self._shards: Mapping[int, Shard] = {}
        self._why: dict[Shard, Exception] = {}
        """Why no rows of a shard can be sent now."""
        self._why_parts: dict[tuple[Shard, Part], Exception] = {}
        """Why it cannot be known now what has become of the last batch to a partition."""
        self.leaders: Leaders | None = None
        """Over the connections that the lane has now."""
        self.routing: Callable[[], Route] = lambda: Route("", 0)
        """Returns how rows are routed now."""
        self.is_down: Callable[[Part], bool] = lambda _part: False
        """Returns whether a partition is known to be down, and not to be asked about now."""

    @property
    def forwarder(self) -> str:
        return self._books.forwarder()

    def begin(self) -> None:
        # What an earlier hand-over has left was cut off: its shards are taken over again, and are in doubt.
        self._in_hand, self._shards, self._why, self._why_parts = {}, {}, {}, {}

    async def look(self, taken: HandOver) -> Collection[int]:
        self.begin()
        self._shards = {row.id: shard for row, shard in zip(taken.rows, taken.row_shards(), strict=True)}
        strange: dict[Shard, ShardBook | None] = {}
        for shard in dict.fromkeys(self._shards.values()):
            book = self._books.by_shard.pop(shard, None)
            if book is not None and book.is_last(taken.tokens.get(shard), taken.run):
                self._in_hand[shard] = book
                if book.way != self.routing().mark:
                    book.reconsider()
            else:
                strange[shard] = book
        if strange:
            await self._take_over(strange, taken)
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._look()
        except TimeoutError as error:
            self._doubtful_shards(error)
        await self._look_after_marks(taken)
        await self._reroute()
        if not any(book.found for book in self._in_hand.values()):
            return ()
        return [row.id for row in taken.rows if self._is_found(row)]

    async def _look_after_marks(self, taken: HandOver) -> None:
        """Ask again for rows that keep positions where they are, and do not come: they may be deleted, or parked."""
        found = {self._shards[row.id] for row in taken.rows if self._is_found(row)}
        books = [book for shard, book in self._in_hand.items() if book.alive and shard not in found]
        if books:
            alive = {*await self._books.store.alive({mark for book in books for mark in book.alive})}
            for book in books:
                book.outlived(alive)

    def _is_found(self, row: OutboxRow) -> bool:
        book = self._in_hand.get(self._shards[row.id])
        return book is not None and bool(book.found) and mark_of(row) in book.found

    async def _take_over(self, shards: Mapping[Shard, ShardBook | None], taken: HandOver) -> None:
        producers = await self._new_producers([shard for shard in shards if shard not in taken.tokens])
        routing = self.routing().mark
        seen = {shard: taken.tokens[shard] for shard in shards if shard in taken.tokens}
        # Whatever may be in doubt was routed as the last process did.
        takeovers = [Takeover(shard, token, new_token(routing_of(token))) for shard, token in seen.items()]
        takeovers += [Takeover(shard, None, new_token(routing), producer) for shard, producer in producers.items()]
        held = await self._books.store.take_over(self.forwarder, takeovers) if takeovers else {}
        for takeover in takeovers:
            if takeover.shard in held:
                book = self._in_hand[takeover.shard] = ShardBook(held[takeover.shard], taken.run)
                if (before := shards[takeover.shard]) is not None:
                    book.go_on(before)
            else:
                self._why[takeover.shard] = InDoubtError("another process has taken the shard over meanwhile")

    async def _new_producers(self, shards: Sequence[Shard]) -> Mapping[Shard, Producer]:
        """Return a producer for each shard, except for those for which Kafka gives none."""
        asked = await asyncio.gather(*(self._new_producer() for _ in shards), return_exceptions=True)
        producers = {}
        for shard, answer in zip(shards, asked, strict=True):
            if isinstance(answer, Exception):
                self._why[shard] = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                producers[shard] = answer
        return producers

    async def _new_producer(self) -> Producer:
        return await self._asking().new_producer()

    async def _reroute(self) -> None:
        """Write how rows are routed now, where nothing is in doubt, before the first of them is sent."""
        routing = self.routing()
        marks = {shard: mark for shard, book in self._in_hand.items() if (mark := book.reroute(routing)) is not None}
        takeovers = [Takeover(shard, self._in_hand[shard].token, new_token(mark)) for shard, mark in marks.items()]
        held = await self._books.store.take_over(self.forwarder, takeovers) if takeovers else {}
        for shard, _, token, _ in takeovers:
            if shard in held:
                self._in_hand[shard].rerouted(token, routing)
            else:
                del self._in_hand[shard]
                self._why[shard] = InDoubtError("another process has taken the shard over meanwhile")

    async def _look(self) -> None:
        """Ask and read until nothing is in doubt, but for what has to wait."""
        waiting = {
            (shard, part) for shard, book in self._in_hand.items() for part in book.doubtful() if self.is_down(part)
        }
        self._why_parts = dict.fromkeys(waiting, InDoubtError("the partition is down"))
        while looks := self._looks(waiting):
            told = await self._asking().tell(looks.keys())
            cleared: list[tuple[_Doubt, Clear]] = []
            for part, of_part in looks.items():
                answer = told[part]
                try:
                    findings = [(one, _finding(one, answer)) for one in of_part]
                    cleared += [(one, found) for one, found in findings if isinstance(found, Clear)]
                    for one, found in findings:
                        if isinstance(found, Wait):
                            problem = InDoubtError(f"partition {part.partition} of {part.topic!r}: {found.why}")
                            self._cannot_tell(one, problem, waiting)
                    if to_read := [one for one, found in findings if isinstance(found, Read)]:
                        assert isinstance(answer, Told)  # noqa: S101 - it says what to read
                        await self._read(part, to_read, answer.end)
                        cleared += _settled(to_read, answer)
                except Exception as error:  # noqa: BLE001 - Kafka's
                    for one in of_part:
                        self._cannot_tell(one, error, waiting)
            await self._clear(cleared)

    def _looks(self, waiting: Collection[tuple[Shard, Part]]) -> dict[Part, list[_Doubt]]:
        """Return what is in doubt, but for what has to wait, by partition: its log is read once for all shards."""
        looks: defaultdict[Part, list[_Doubt]] = defaultdict(list)
        for shard, book in self._in_hand.items():
            for part, look in book.doubtful().items():
                if (shard, part) not in waiting:
                    looks[part].append(_Doubt(shard, part, book, look))
        return looks

    def _cannot_tell(self, one: "_Doubt", error: Exception, waiting: set[tuple[Shard, Part]]) -> None:
        waiting.add((one.shard, one.part))
        self._why_parts[one.shard, one.part] = error

    def _doubtful_shards(self, error: Exception) -> None:
        for shard, book in self._in_hand.items():
            if book.doubtful():
                self._why.setdefault(shard, error)

    async def _read(self, part: Part, looking: Sequence[_Doubt], end: int) -> None:
        """Read a log up to what is its end now."""
        of_producer = {one.book.held.producer.id: one.look for one in looking}
        offset = min(one.look.offset for one in looking)
        while offset < end:
            found = await self._read_on(part, offset, of_producer.keys())
            if not found:
                for look in of_producer.values():
                    look.skipped()
            offset = found[-1].end if found else end
            for producer_id, look in of_producer.items():
                ours = [one.batch for one in found if one.producer_id == producer_id and one.end > look.offset]
                if offset > look.offset:
                    look.read([batch for batch in ours if batch is not None], offset)

    async def _read_on(self, part: Part, offset: int, producer_ids: Collection[int]) -> Sequence[Found]:
        """Return the next batches of a log; none where there is nothing more, though the log does not end here.

        Compaction may have left nothing. A server that has older records in another storage (KIP-405) gives none either
        as long as it fetches them, and is asked again.
        """
        found = await self._asking().read(part, offset, producer_ids)
        for _ in range(TIMES_EMPTY):
            if found:
                break
            found = await self._asking().read(part, offset, producer_ids, wait_seconds=EMPTY_SECONDS)
        return found

    async def _clear(self, cleared: Sequence[tuple[_Doubt, Clear]]) -> None:
        marks = {mark for _, clear in cleared for mark in clear.marks}
        alive = {*await self._books.store.alive(marks)} if marks else set()
        for one, clear in cleared:
            one.book.cleared(one.part, clear, alive.intersection(clear.marks))
            for problem in clear.problems:
                self._books.maybe_repeated += 1
                self._books.log(
                    logging.WARNING,
                    f"forwarder {self.forwarder!r}, shard {one.shard.number} of {one.shard.queue!r}, partition "
                    f"{one.part.partition} of {one.part.topic!r}: messages that were in doubt may be there twice: "
                    f"{problem}",
                    None,
                )

    async def open_missing(self, wanted: Collection[tuple[Shard, Part]], routing: Route) -> Mapping[Part, Exception]:
        """Begin partitions that their shard has not sent to before.

        Args:
            wanted: Shards, and where their rows go.
            routing: How these rows were routed.

        Returns:
            Why some could not be begun: they get no rows.
        """
        missing: defaultdict[Shard, set[Part]] = defaultdict(set)
        for shard, part in wanted:
            book = self._in_hand.get(shard)
            if book is not None and book.may_begin(part, routing):
                missing[shard].add(part)
        return await self._open(missing) if missing else {}

    async def _open(self, missing: Mapping[Shard, Collection[Part]]) -> Mapping[Part, Exception]:
        """Begin partitions of all shards, with one question to each leader and one transaction."""
        # Its end would be enough, but to ask for the rest takes the right to read, without which no doubt ends.
        told = await self._asking().tell({part for parts in missing.values() for part in parts})
        ends = {part: answer.end for part, answer in told.items() if isinstance(answer, Told)}
        new_parts = [
            NewParts(shard, self._in_hand[shard].token, {part: ends[part] for part in ends.keys() & parts})
            for shard, parts in missing.items()
            if ends.keys() & parts
        ]
        begun = await self._books.store.open(self.forwarder, new_parts) if new_parts else {}
        for new in new_parts:
            parts = begun.get(new.shard, ())
            if len(parts) < len(new.ends):
                # What this process does not know was begun before: by its own commit, say, whose answer was lost. The
                # next hand-over takes the shard over, and learns what is there.
                del self._in_hand[new.shard]
            else:
                self._in_hand[new.shard].opened({part: ends[part] for part in parts})
        return {part: answer for part, answer in told.items() if isinstance(answer, Exception)}

    def shard_of(self, row_id: int) -> Shard:
        """Return the shard of a row."""
        return self._shards[row_id]

    def book_of(self, shard: Shard) -> ShardBook | None:
        """Return what is known of a shard; None where it could not be taken over."""
        return self._in_hand.get(shard)

    def why_of_part(self, shard: Shard, part: Part) -> Exception | None:
        """Return why it is not known what has become of a shard's last batch to a partition; None if that is known."""
        return self._why_parts.get((shard, part))

    def why(self, shard: Shard) -> Exception:
        """Return why no rows of a shard can be sent now."""
        return self._why_not(shard)

    def _why_not(self, shard: Shard | None) -> Exception:
        why = None if shard is None else self._why.get(shard)
        return why or InDoubtError("it is not known yet what has become of an earlier batch")

    def doubt(self, row: OutboxRow) -> Exception | None:
        shard = self._shards.get(row.id)
        if shard is None or (book := self._in_hand.get(shard)) is None or book.may_be_there(row.id):
            return self._why_not(shard)
        return None

    def moves(self, delivered: Sequence[OutboxRow]) -> Mapping[Shard, Move]:
        rows: defaultdict[Shard, list[OutboxRow]] = defaultdict(list)
        for row in delivered:
            if (shard := self._shards.get(row.id)) is not None:
                rows[shard].append(row)
        books = {shard: self._in_hand[shard] for shard in rows if shard in self._in_hand}
        # Marks cost as much as the rest of it, and are of use only where a look has found records.
        return {
            shard: book.move(new_token(book.routing), marks_of(rows[shard]) if book.alive else ())
            for shard, book in books.items()
        }

    def stay_behind(self, moves: Mapping[Shard, Move], kept: Sequence[OutboxRow]) -> Mapping[Shard, Move]:
        marks: defaultdict[Shard, list[Mark]] = defaultdict(list)
        for row in kept:
            if (shard := self._shards.get(row.id)) is not None and shard in moves:
                marks[shard].append(mark_of(row))
        behind = {shard: self._in_hand[shard].stay_behind(moves[shard], of_shard) for shard, of_shard in marks.items()}
        return {shard: move for shard, move in behind.items() if move is not None}

    def written(self, moves: Mapping[Shard, Move]) -> None:
        for shard, move in moves.items():
            self._in_hand[shard].moved(move)
        self._books.by_shard.update(self._in_hand)
        self._in_hand = {}

    def _asking(self) -> Leaders:
        if self.leaders is None:
            msg = "not connected"
            raise ConnectionError(msg)
        return self.leaders


def _settled(looking: Sequence[_Doubt], told: Told) -> Sequence[tuple[_Doubt, Clear]]:
    settled = [(one, one.look.settle(told.of(one.book.held.producer))) for one in looking]
    return [(one, clear) for one, clear in settled if clear is not None]


def _finding(one: _Doubt, answer: Told | Exception) -> Finding:
    if isinstance(answer, MissingError):
        return one.look.missing()
    if isinstance(answer, Exception):
        raise answer
    return one.look.judge(answer.of(one.book.held.producer))


def new_token(routing: int) -> int:
    """Return a number that no other process writes: a database that has lost a commit does not count on from it.

    Args:
        routing: The mark of the routing that it is to say.
    """
    return secrets.randbits(63 - ROUTING_BITS) << ROUTING_BITS | routing
