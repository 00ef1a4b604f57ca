"""What must be true of rows, whatever happens to publishers, relays and destinations: G1 to G5."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from faststream_outbox._values.outcome import Accepted, Poison, Refused, Unsent, Verdict
from faststream_outbox._values.row import OutboxRow

MAX_ATTEMPTS = 3


class State(Enum):
    OPEN = auto()
    """Written by a transaction that has not ended."""
    ROLLED_BACK = auto()
    LIVE = auto()
    DEAD = auto()
    DELIVERED = auto()
    DISCARDED = auto()


@dataclass(eq=False)
class Message:
    """What a publisher said; its rows share it."""

    key: str | None
    body: bytes
    headers: dict[str, str]
    asked_identity: str | None
    is_timer: bool
    queue: str
    """Where it was published; copies are in others."""
    identity: str | None = None
    """The idempotency key, as soon as it was seen."""

    @property
    def own_headers(self) -> dict[str, str]:
        return {"number": self.headers["number"]}


@dataclass(eq=False)
class Tracked:
    """A row as it should be."""

    message: Message
    queue: str
    transaction: int | None
    inserted_at: int
    state: State = State.OPEN
    committed_at: int | None = None
    id: int | None = None
    is_timer: bool = False
    attempts: int = 0
    was_tried: bool = False
    is_waiting: bool = False
    """For its time, as a timer or for a retry."""
    is_poison: bool = False
    holds_key: bool = False
    arrivals: int = 0
    excuses: int = 0
    """Arrivals that the relay could not know of, or not write down: each is a reason for one more."""
    excuse: str = ""
    """What was the last of them."""
    replays: int = 0

    @property
    def name(self) -> str:
        return f"{self.queue}/{self.message.body[:8]!r} (id {self.id}, key {self.message.key}, {self.state.name})"

    @property
    def is_waiting_to_arrive(self) -> bool:
        return self.arrivals == 0 and (self.state is State.LIVE or (self.state is State.DEAD and self.holds_key))


@dataclass
class Record:
    """What a destination saw of one hand-over."""

    answers: list[tuple[Tracked, Verdict]] = field(default_factory=list)
    arrived: list[Tracked] = field(default_factory=list)
    recalled: list[Tracked] = field(default_factory=list)
    """Rows whose answers are those of an earlier hand-over."""
    keys: set[tuple[str, str | None]] = field(default_factory=set)
    """Queue and key of what is in hand."""


class Lost:
    """The verdicts that the lanes of one forwarder of one process could not write."""

    def __init__(self) -> None:
        self._verdicts: dict[tuple[int, int, int], Verdict] = {}

    def add(self, record: Record) -> None:
        self._verdicts.update((_as_it_is(row), verdict) for row, verdict in record.answers)

    def verdict_on(self, row: Tracked) -> Verdict:
        """The verdict on a row that has not changed since. It is written instead of being asked for again."""
        verdict = self._verdicts.get(_as_it_is(row))
        assert verdict is not None, f"G2: an outcome of {row.name} that comes from no answer"
        assert not isinstance(verdict, Unsent), f"G2: an outcome of {row.name}, which was not answered"
        return verdict


def _as_it_is(row: Tracked) -> tuple[int, int, int]:
    return id(row), row.attempts, row.replays


class Model:
    """Args: whether a dead letter holds its key, and whether dead letters are moved to a table of their own."""

    def __init__(self, *, hold_key: bool, moves: bool) -> None:
        self.hold_key = hold_key
        self.moves = moves
        self.rows: list[Tracked] = []
        self.violations: list[str] = []
        self.seen: Counter[str] = Counter()
        self._clock = itertools.count(1)
        self._bodies = itertools.count(1)

    # --- publishers

    def compose(self, key: str | None, queue: str, *, identity: str | None, is_timer: bool) -> Message:
        number = next(self._bodies)
        headers = {"number": str(number), "correlation_id": "c"}
        return Message(key, b"%d:\x00\xff" % number, headers, identity, is_timer, queue)

    def published(self, transaction: int, queues: Sequence[str], message: Message) -> Tracked | None:
        """Tell which row must have been written to the first queue, if any; copies go to the others."""
        if self._stand_in(queues[0], message.asked_identity) is not None:
            return None
        written = [
            Tracked(
                message,
                queue,
                transaction,
                next(self._clock),
                is_timer=message.is_timer,
                is_waiting=message.is_timer,
            )
            for queue in queues
            if self._stand_in(queue, message.asked_identity) is None
        ]
        self.rows += written
        return written[0]

    def committed(self, transaction: int) -> None:
        now = next(self._clock)
        for row in self._of(transaction):
            row.state, row.committed_at = State.LIVE, now

    def rolled_back(self, transaction: int) -> None:
        for row in self._of(transaction):
            row.state = State.ROLLED_BACK
            self.seen["rolled back"] += 1

    def _of(self, transaction: int) -> Iterator[Tracked]:
        return (row for row in self.rows if row.transaction == transaction and row.state is State.OPEN)

    def _stand_in(self, queue: str, identity: str | None) -> Tracked | None:
        """The live row that makes publishing a no-op."""
        if identity is None:
            return None
        for row in self.rows:
            is_live = row.state in {State.OPEN, State.LIVE} or (row.state is State.DEAD and not self._is_moved(row))
            if row.queue == queue and row.message.asked_identity == identity and is_live:
                return row
        return None

    def _is_moved(self, row: Tracked) -> bool:
        return self.moves and not row.holds_key

    # --- destinations

    def find(self, row: OutboxRow) -> Tracked:
        """The row with this body in this queue; it must be the one that was published. (G1, G3)"""
        [found] = [each for each in self.rows if (each.message.body, each.queue) == (row.payload, row.queue)]
        if found.state is not State.LIVE:
            self.violations.append(f"G1, G2: {found.name} is sent")
        found.id = found.id or row.id
        message = found.message
        message.identity = message.identity or message.asked_identity or row.idempotency_key
        expected = (found.id, message.key, message.identity, message.headers)
        actual = (row.id, row.key, row.idempotency_key, dict(row.headers))
        if actual != expected:
            self.violations.append(f"G3: {found.name} is sent as {actual}, not {expected}")
        if row.attempts_count != found.attempts:
            self.violations.append(f"G5: {found.name} was tried {found.attempts} times, not {row.attempts_count}")
        return found

    def arrived(self, row: Tracked) -> None:
        """Check that no earlier row of its key is still to come. (G4)"""
        if row.arrivals == 0:
            for other in self.rows:
                if self._must_precede(other, row):
                    self.violations.append(f"G4: {row.name} passes {other.name}")
        self.seen["arrived" if row.arrivals == 0 else f"repeated after {row.excuse}"] += 1
        self.seen["copies"] += row.arrivals == 0 and row.queue != row.message.queue
        row.arrivals += 1

    def _must_precede(self, one: Tracked, other: Tracked) -> bool:
        if one is other or one.queue != other.queue or one.message.key != other.message.key or one.message.key is None:
            return False
        if not one.is_waiting_to_arrive or (one.is_poison and not self.hold_key):
            return False
        if one.was_tried and one.id is not None and other.id is not None and one.id < other.id:
            return True
        if one.is_timer or other.is_timer:
            return False
        # Of two transactions that overlap neither is the first.
        is_before = one.committed_at is not None and one.committed_at < other.inserted_at
        return is_before or (one.transaction == other.transaction and one.inserted_at < other.inserted_at)

    # --- relays

    def settled(self, record: Record) -> None:
        """The hand-over was committed: each answer counts, and nothing else does. (G2, G5)"""
        for row, verdict in record.answers:
            if row in record.recalled:
                # Where it has arrived, nobody has to send it again.
                row.excuses -= isinstance(verdict, Accepted)
                self.seen["written later"] += 1
            match verdict:
                case Accepted():
                    row.state = State.DELIVERED
                case Refused():
                    self._failed(row, is_final=row.attempts + 1 == MAX_ATTEMPTS)
                case Poison():
                    self._failed(row, is_final=True)
                case Unsent():
                    self._excuse([row] if row in record.arrived else [], "no answer")
            self.seen[type(verdict).__name__] += 1

    def _failed(self, row: Tracked, *, is_final: bool) -> None:
        row.attempts += 1
        row.was_tried = True
        row.is_waiting = not is_final
        if is_final:
            row.state = State.DEAD
            row.holds_key = self.hold_key and row.message.key is not None
            self.seen["dead, holds its key" if row.holds_key else "dead"] += 1

    def lost(self, record: Record, how: str) -> None:
        """The hand-over was not committed: what has arrived may come again."""
        self._excuse(record.arrived, how)

    @staticmethod
    def _excuse(rows: Sequence[Tracked], excuse: str) -> None:
        for row in rows:
            row.excuses += 1
            row.excuse = excuse

    def has_work(self, queues: Sequence[str], except_of: Collection[tuple[str, str | None]] = ()) -> bool:
        """Tell whether a row could be taken now, of another queue and key than those."""
        return any(
            row.queue in queues
            and row.state is State.LIVE
            and not row.is_waiting
            and (row.queue, row.message.key) not in except_of
            and not self._is_behind(row)
            for row in self.rows
        )

    def _is_behind(self, row: Tracked) -> bool:
        """Tell whether another row of its key waits for a retry, or is a dead letter that holds it."""
        return row.message.key is not None and any(
            (other.holds_key or (other.was_tried and other.is_waiting))
            and other.state in {State.LIVE, State.DEAD}
            and (other.queue, other.message.key) == (row.queue, row.message.key)
            and other.inserted_at < row.inserted_at
            for other in self.rows
        )

    def time_passed(self) -> None:
        """As much as timers and retries wait."""
        for row in self.rows:
            if row.state is State.LIVE:
                row.is_waiting = False

    # --- people

    def dead(self, key: str | None) -> list[Tracked]:
        """Dead letters of a key (None: all), in the order in which they are replayed."""
        chosen = [row for row in self.rows if row.state is State.DEAD and key in {None, row.message.key}]
        return sorted(chosen, key=lambda row: (not row.holds_key, row.id))

    def replayed(self, key: str | None) -> int:
        count = 0
        for row in self.dead(key):
            if row.holds_key:
                row.holds_key = False
            elif self._stand_in(row.queue, row.message.asked_identity) in {None, row}:
                # Under a new id, as if it were published now.
                row.id, row.transaction, row.was_tried, row.is_timer = None, None, False, False
                row.inserted_at = row.committed_at = next(self._clock)
            else:
                continue
            if row.is_poison:
                # Whatever was wrong with it is mended.
                row.is_poison = False
            row.state, row.attempts, row.is_waiting, row.replays = State.LIVE, 0, False, row.replays + 1
            count += 1
        self.seen["replayed"] += count
        return count

    def discarded(self, key: str | None) -> int:
        chosen = self.dead(key)
        for row in chosen:
            row.state = State.DISCARDED
        self.seen["discarded"] += len(chosen)
        return len(chosen)

    # --- at every step

    def check_tables(self, records: Sequence[Any]) -> None:
        """What is in the tables, and how often each row was tried. (G1, G2, G3, G5)"""
        expected = {(row.queue, row.message.body): row for row in self.rows if row.state in {State.LIVE, State.DEAD}}
        actual = {(each.queue, each.payload): each for each in records}
        assert len(actual) == len(records), "G2: a row is there twice"
        states = {where: (row.state.name, row.holds_key) for where, row in expected.items()}
        assert {where: (each.state, each.holds_key) for where, each in actual.items()} == states, "G1 or G2: the tables"
        for where, row in expected.items():
            assert actual[where].key == row.message.key, f"G3: {row.name} has another key"
            counted = (actual[where].attempts_count, actual[where].deliveries_count)
            assert counted == (row.attempts, 0), f"G5: {row.name} was tried {row.attempts} times, and counted {counted}"

    def check_arrivals(self, in_flight: Sequence[Record]) -> None:
        """Rows arrive once, and again for each arrival that nobody could write down."""
        assert not self.violations
        pending = Counter(id(row) for record in in_flight for row in record.arrived)
        for row in self.rows:
            is_delivered = row.state is State.DELIVERED
            assert row.arrivals == row.excuses + is_delivered + pending[id(row)], f"{row.name} arrived too often"
