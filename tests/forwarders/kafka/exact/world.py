"""Partitions, a table and processes as they were measured to behave, for the model of exactly once.

One shard, whose rows go to two partitions. A process is a generator that stops at each point at which it may die, be
paused, or meet another one.
"""

import copy
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias

from faststream_outbox._values.position import Held, Mark, Move, Part, Position, Producer
from faststream_outbox._values.run import NO_RUN, Run
from faststream_outbox.forwarders.kafka.exact.book import ROUTING_BITS, Route, ShardBook, is_read_back, routing_of
from faststream_outbox.forwarders.kafka.exact.look import (
    SEQUENCES,
    Batch,
    Clear,
    Finding,
    Log,
    Look,
    Problem,
    Read,
    Wait,
)

PARTS = [Part("orders", 0), Part("orders", 1)]
FIRST_SEQUENCE = SEQUENCES - 3
"""Near the end, so that sequences wrap."""
KEYS = 4
DAY = 24 * 60
REMEMBERED_BATCHES = 5
MOST_LOST = 3
"""Transactions that a database may lose when it fails over: a take-over, a commit, and one more."""
OUT_OF_ORDER = -45
TIMED_OUT = -7
CUT = -1000
"""The connection was lost."""


def mark_of(row_id: int) -> Mark:
    return Mark(row_id, f"key-{row_id}")


def key_of(row_id: int) -> int:
    return row_id % KEYS


def part_of(row_id: int, routing: int) -> Part:
    return PARTS[key_of(row_id) // (1 + routing % 2) % 2]


@dataclass
class Stored:
    """A record batch in a log."""

    producer: int
    offset: int
    sequence: int
    marks: list[Mark]

    @property
    def end(self) -> int:
        return self.offset + len(self.marks)

    @property
    def next_sequence(self) -> int:
        return (self.sequence + len(self.marks)) % SEQUENCES


@dataclass(eq=False)
class Request:
    """A record batch on its way, perhaps long after its sender has died."""

    part: Part
    producer: int
    sequence: int
    marks: list[Mark]
    stamped: int
    sender: "Process"
    connection: int


@dataclass
class Partition:
    """The leader's log, its high watermark, and the last batches of each producer that it remembers."""

    log: list[Stored] = field(default_factory=list)
    start: int = 0
    readable: int = 0
    replicated: int = 0
    """What any next leader has."""
    end: int = 0
    remembered: dict[int, deque[Stored]] = field(default_factory=dict)
    stamped: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    """The newest time that a client wrote into a batch: the state is kept from then on for a day."""

    def produce(self, request: Request, *, is_replicated: bool) -> int:
        """Return the offset, or the code of an error as a negative number."""
        remembered = self.remembered.setdefault(request.producer, deque(maxlen=REMEMBERED_BATCHES))
        for batch in remembered:
            if (batch.sequence, len(batch.marks)) == (request.sequence, len(request.marks)):
                if is_replicated:
                    self.replicate()
                return batch.offset if batch.end <= self.readable else TIMED_OUT
        if remembered and request.sequence != remembered[-1].next_sequence:
            return OUT_OF_ORDER
        batch = Stored(request.producer, self.end, request.sequence, request.marks)
        self.log.append(batch)
        remembered.append(batch)
        self.stamped[request.producer] = max(self.stamped[request.producer], request.stamped)
        self.end = batch.end
        if is_replicated:
            self.replicate()
        return batch.offset if is_replicated else TIMED_OUT

    def replicate(self) -> None:
        self.readable = self.replicated = self.end

    def append_foreign(self, count: int) -> None:
        self.end += count
        self.replicate()

    def describe(self, producer: int) -> Log | None:
        """Return what the leader tells; None where it does not know how far its log may be read.

        Kafka says so itself then (KIP-207). Here it does so only where it has no other sign: to be on the safe side.
        """
        if remembered := self.remembered.get(producer):
            return Log(remembered[-1].next_sequence, self.start, self.readable)
        return Log(None, self.start, self.readable) if self.readable >= self.replicated else None

    def read(self, producer: int, offset: int) -> tuple[list[Batch], int]:
        """Read on, in steps of one batch."""
        at = max(offset, self.start)
        found = [one for one in self.log if at < one.end <= self.readable and one.producer == producer]
        until = found[0].end if len(found) > 1 else self.readable
        return [Batch(one.offset, one.sequence, len(one.marks), one.marks) for one in found[:1]], until

    def lose(self, end: int) -> None:
        """Cut the log off, and the state with it."""
        self.log = [batch for batch in self.log if batch.end <= end]
        self.end = min(self.end, end)
        self.replicated = min(self.replicated, self.end)
        self.readable = min(self.readable, self.end)
        for producer, batches in self.remembered.items():
            kept = [batch for batch in batches if batch.end <= end]
            self.remembered[producer] = deque(kept, maxlen=REMEMBERED_BATCHES)

    def lag(self) -> None:
        """Be a new leader, which does not know yet how far its log may be read."""
        self.readable = max([batch.offset for batch in self.log if batch.offset < self.readable], default=self.start)

    def restart(self) -> None:
        """Start from the disk: only the last batch of each producer is recognised."""
        for producer, batches in self.remembered.items():
            self.remembered[producer] = deque([*batches][-1:], maxlen=REMEMBERED_BATCHES)

    def expire(self, now: int) -> None:
        for producer in [*self.remembered]:
            if now - self.stamped[producer] > DAY:
                del self.remembered[producer]

    def delete(self) -> None:
        """Delete all that can be read, as retention does; what is remembered of producers stays."""
        self.start = self.readable
        self.log = [batch for batch in self.log if batch.offset >= self.start]

    def visible(self) -> list[tuple[int, Mark]]:
        readable = [batch for batch in self.log if batch.end <= self.readable]
        return [(batch.offset + at, mark) for batch in readable for at, mark in enumerate(batch.marks)]


Steps: TypeAlias = Generator[str, None, None]


@dataclass(eq=False)
class Process:
    """One that hands rows over, again and again."""

    book: ShardBook | None = None
    running: Steps | None = None
    connection: int = 0
    answer: int | None = None


@dataclass
class Rules:
    """What the product does; a mutant does one of it carelessly."""

    looks: bool = True
    trusts_the_hint: bool = False
    reads_back: bool = True
    compares: Callable[[Sequence[Mark], Sequence[Mark]], bool] = is_read_back
    claims_first: bool = True
    claims_what_it_saw: bool = True
    keeps_the_producer: bool = True
    heeds_the_run: bool = True
    remembers_the_dead: bool = True
    waits_for_found_rows: bool = True
    stays_behind_kept_rows: bool = True
    stamp: Callable[[int, int], int] = lambda now, _created: now
    heeds_the_routing: bool = True
    keeps_the_routing: bool = True
    part_of: Callable[[int, int, int], Part] = lambda row_id, _turn, routing: part_of(row_id, routing)


@dataclass
class Table:
    """What PostgreSQL has."""

    rows: dict[int, int] = field(default_factory=dict)
    """Undelivered ones, and when they were published."""
    token: int = 0
    producer: Producer | None = None
    positions: dict[Part, Position] = field(default_factory=lambda: dict.fromkeys(PARTS, Position(FIRST_SEQUENCE, -1)))


class World:
    """The table, the partitions, what is on its way between them, and who is at work."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.now = 10 * DAY
        self.partitions = {part: Partition() for part in PARTS}
        self.table = Table()
        self.before: deque[Table] = deque(maxlen=MOST_LOST)
        """What it was before each of the last transactions of processes."""
        self.routing = 1
        """How often keys have got other partitions."""
        self.run = Run(datetime.fromtimestamp(0, UTC), None)
        """Of the database server."""
        self.holder: Process | None = None
        self.network: list[Request] = []
        self.problems: list[Problem] = []
        self.seen: dict[tuple[Part, int, int], Mark] = {}
        """What a reader has got, by generation and offset."""
        self.generation = 0
        self.published = self._last = 0
        self.kept_key: int | None = None
        """Of rows that the table refuses to delete."""
        self.is_damaged = False
        """Whether a log has lost or deleted records: what can be known then has limits."""

    def _next(self) -> int:
        self._last += 1
        return self._last

    # The table

    def publish(self, count: int) -> None:
        for _ in range(count):
            self.published += 1
            # Rows that have waited for the end of an outage.
            self.table.rows[self.published] = self.now - 2 * DAY

    def _token(self, routing: int) -> int:
        return self._next() << ROUTING_BITS | routing

    def claim(self, saw: int, routing: int) -> Held | None:
        """Take the shard over; None where somebody has written since."""
        producer = self.table.producer or Producer(self._next(), 0)
        if not self.rules.claims_first:
            return Held(saw, self.table.producer or Producer(1, 0), dict(self.table.positions))
        if self.rules.claims_what_it_saw and saw != self.table.token:
            return None
        self.before.append(copy.deepcopy(self.table))
        self.table.token = self._token(routing)
        if self.rules.keeps_the_producer and self.table.producer is None:
            # What has lost the producer's id cannot find its batches. That is bounded to the first hand-over of all.
            for table in (self.table, *self.before):
                table.producer = producer
        return Held(self.table.token, producer, dict(self.table.positions))

    def commit(self, process: Process, delivered: Sequence[int], moves: Sequence[Move]) -> bool:
        move = moves[0]
        if self.holder is not process or move.token != self.table.token:
            return False
        self.before.append(copy.deepcopy(self.table))
        visible = {mark for partition in self.partitions.values() for _, mark in partition.visible()}
        for row_id in delivered:
            assert self.is_damaged or mark_of(row_id) in visible | {*self.seen.values()}, f"{row_id} is in no log"
            if key_of(row_id) != self.kept_key:
                self.table.rows.pop(row_id, None)
        for move in moves:
            assert move.token == self.table.token
            self.table.token = move.new_token
            self.table.positions.update(move.positions)
        return True

    def fail_over(self, lost: int) -> None:
        """Go on with a standby that has not got the last transactions."""
        self.run = Run(datetime.fromtimestamp(self._next(), UTC), None)
        self.holder = None
        rows = self.table.rows
        for _ in range(min(lost, len(self.before))):
            self.table = self.before.pop()
        self.table.rows.update({row_id: at for row_id, at in rows.items() if row_id not in self.table.rows})

    # The network

    def send(self, process: Process, request: Request) -> None:
        process.answer = None
        self.network.append(request)

    def deliver(self, request: Request, *, is_replicated: bool) -> None:
        self.network.remove(request)
        answer = self.partitions[request.part].produce(request, is_replicated=is_replicated)
        if request.sender.connection == request.connection:
            request.sender.answer = answer
        self.read_as_others_do()

    def cut(self, process: Process) -> None:
        """End a process's connection; what it has sent may arrive all the same."""
        process.connection += 1
        process.answer = CUT

    def pass_a_day(self) -> None:
        """No transaction outlives that, and nothing that is on its way."""
        self.now += 2 * DAY
        self.network.clear()
        self.holder = None
        for partition in self.partitions.values():
            partition.replicate()
        self.read_as_others_do()

    def read_as_others_do(self) -> None:
        for part, partition in self.partitions.items():
            self.seen.update({(part, self.generation, offset): mark for offset, mark in partition.visible()})

    # A hand-over

    def hand_over(self, process: Process, limit: int, waiting_key: int) -> Steps:
        self.holder = process
        connection = process.connection
        free = [row_id for row_id in sorted(self.table.rows) if key_of(row_id) != waiting_key]
        rows = {row_id: self.table.rows[row_id] for row_id in free[:limit]}
        routing = self.routing
        saw, run = self.table.token, self.run if self.rules.heeds_the_run else NO_RUN
        book, process.book = process.book, None
        if book is None or not book.is_last(saw, run):
            yield "about to take over"
            if (held := self.claim(saw, routing_of(saw) if self.rules.keeps_the_routing else routing)) is None:
                self._let_go(process)
                return
            book = ShardBook(held, run)
            yield "has taken over"
        if book.way != routing and self.rules.heeds_the_routing:
            book.reconsider()
        yield from self._look(book)
        if (mark := book.reroute(now := Route(PARTS[0].topic, routing))) is not None:
            yield "about to say how it routes"
            if (held := self.claim(book.token, mark)) is None:
                self._let_go(process)
                return
            book.rerouted(held.token, now)
        accepted = [row_id for row_id in rows if mark_of(row_id) in book.found]
        shares: dict[Part, dict[int, int]] = defaultdict(dict)
        for row_id in rows.keys() - {*accepted}:
            shares[self.rules.part_of(row_id, self._next(), routing)][row_id] = rows[row_id]
        for part, share in shares.items():
            way = Route(part.topic, routing if self.rules.heeds_the_routing else book.way or 0)
            if process.connection == connection and book.may_send(part, way):
                accepted += yield from self._send(process, book, part, dict(sorted(share.items())))
        yield "about to commit"
        moves = self._moves(book, accepted)
        if self.commit(process, accepted, moves):
            book.moved(moves[-1])
            process.book = book
        self._let_go(process)

    def _moves(self, book: ShardBook, accepted: Sequence[int]) -> Sequence[Move]:
        move = book.move(self._token(book.routing), [mark_of(row_id) for row_id in accepted])
        kept = [mark_of(row_id) for row_id in accepted if key_of(row_id) == self.kept_key]
        behind = book.stay_behind(move, kept) if kept and self.rules.stays_behind_kept_rows else None
        return [move] if behind is None else [move, behind]

    def _let_go(self, process: Process) -> None:
        if self.holder is process:
            self.holder = None

    def _look(self, book: ShardBook) -> Steps:
        for part, look in book.doubtful().items():
            is_waiting = False
            while not is_waiting:
                yield "about to ask the leader"
                log = self.partitions[part].describe(book.held.producer.id)
                finding: Finding | None = self._judge(look, log)
                if log is not None and isinstance(finding, Read):
                    while look.offset < log.end and not is_waiting:
                        yield "about to read"
                        batches, until = self.partitions[part].read(book.held.producer.id, look.offset)
                        # Another leader, which does not know yet how far its log may be read, or has less.
                        is_waiting = until <= look.offset
                        if not is_waiting:
                            look.read(batches, until)
                    finding = None if is_waiting else look.settle(log)
                match finding:
                    case Wait():
                        is_waiting = True
                    case Clear() as clear:
                        self.problems += clear.problems
                        alive = [mark for mark in clear.marks if mark.row_id in self.table.rows]
                        book.cleared(part, clear, alive)
                        if not self.rules.remembers_the_dead:
                            book.found = {*book.alive}
                        if not self.rules.waits_for_found_rows:
                            book.alive.clear()
                        break

    def _judge(self, look: Look, log: Log | None) -> Finding:
        if log is None:
            return Wait("no offsets yet")
        if not self.rules.looks:
            return Clear(look.known)
        if self.rules.trusts_the_hint and log.next_sequence is not None:
            ahead = (log.next_sequence - look.known.next_sequence) % SEQUENCES
            rows = sorted(self.table.rows)[: ahead if ahead < SEQUENCES // 2 else 0]
            return Clear(Position(log.next_sequence, look.known.last_offset), [mark_of(row) for row in rows])
        return look.judge(log)

    def _send(
        self, process: Process, book: ShardBook, part: Part, share: dict[int, int]
    ) -> Generator[str, None, list[int]]:
        marks = [mark_of(row_id) for row_id in share]
        producer, connection = book.held.producer.id, process.connection
        yield "about to send"
        if process.connection == connection:
            stamp = self.rules.stamp(self.now, min(share.values()))
            sequence = book.next_sequence(part)
            book.sent(part, share)
            self.send(process, Request(part, producer, sequence, marks, stamp, process, connection))
        while process.answer is None:
            yield "waits for an answer"
        offset = process.answer
        if offset < 0:
            if offset == OUT_OF_ORDER:
                book.contradicted(part)
            return []
        if self.rules.reads_back and book.is_to_be_read_back(part, offset):
            yield "about to read back"
            batches, _ = self.partitions[part].read(producer, offset)
            if not self.rules.compares(marks, batches[0].marks if batches else []):
                book.contradicted(part)
                return []
        book.accepted(part, offset, len(marks))
        return [*share]
