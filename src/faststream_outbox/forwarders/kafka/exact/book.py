"""What a process knows of the shards whose rows it sends: where they stand in each partition, and what is in doubt."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from faststream_outbox._values.position import Held, Mark, Move, Part, Position
from faststream_outbox._values.run import Run
from faststream_outbox.forwarders.kafka.exact.look import SEQUENCES, Clear, Look

ROUTING_BITS = 16
"""Of a token: they say how the rows of all batches were routed that may be in doubt."""


MIXED = 0
"""The mark where they were routed in several ways."""


class Route(NamedTuple):
    """How a process chooses a row's partition."""

    topic: str
    """The forwarder's own."""
    mark: int
    """Of what the choice depends on there: another number of partitions has another mark. From 1 on, of so many bits.

    In other topics, it is not known whether the choice has changed.
    """


def routing_of(token: int) -> int:
    """Return the mark of the routing that a token says."""
    return token & ((1 << ROUTING_BITS) - 1)


@dataclass(slots=True)
class Entry:
    """A partition, as one shard stands in it."""

    written: Position
    """As the position table has it."""
    current: Position
    """With what was sent since and acknowledged."""
    look: Look | None
    """Under way while it is in doubt what was sent last; nothing is sent then."""
    on_the_way: frozenset[int] | None = None
    """The ids of the rows that the look is about; None where it is about what another process may have sent."""
    is_proven: bool = False
    """Whether a batch was read back since the last doubt. A late one of equal size may come before the first one, and
    be acknowledged in its place."""


@dataclass(slots=True)
class ShardBook:
    """One shard, as long as this process is the last one that wrote its positions.

    Args:
        held: What the take-over has found. All of it is in doubt: another process may have sent since it wrote that.
        run: Of the database server that has given the rows.
    """

    held: Held
    run: Run
    entries: dict[Part, Entry] = field(init=False)
    found: set[Mark] = field(default_factory=set)
    """Records that looks have found in the log: their rows are not sent."""
    alive: set[Mark] = field(default_factory=set)
    """Those of them whose rows are still in the outbox table."""
    _rest: set[Mark] = field(default_factory=set)
    way: int | None = field(init=False)
    """The mark of the routing of all batches that may be in doubt; None where it is not the same for all."""

    def __post_init__(self) -> None:
        self.way = self.routing or None
        self.entries = {part: _in_doubt(position) for part, position in self.held.positions.items()}

    @property
    def token(self) -> int:
        return self.held.token

    @property
    def routing(self) -> int:
        """What the next process is told of it."""
        return routing_of(self.held.token)

    def is_last(self, token: int | None, run: Run) -> bool:
        """Return whether nobody has written the shard since this book was.

        A database that fails over may have lost what others have written, and then has the token of this book again.

        Args:
            token: The one that the table has; None where it does not know the shard.
            run: Of the server that says so.
        """
        return token == self.held.token and run == self.run

    def opened(self, ends: Mapping[Part, int]) -> None:
        """Note partitions that this process has begun: nobody has sent to them before their ends of now."""
        for part, end in ends.items():
            position = Position(0, end - 1)
            # Not proven: a database that fails over may have lost that another process had begun it.
            self.entries[part] = Entry(position, position, None)

    def go_on(self, before: "ShardBook") -> None:
        """Take over the looks of an earlier book, where no other process has moved the position since."""
        if before.held.producer != self.held.producer:
            return
        for part, entry in self.entries.items():
            old = before.entries.get(part)
            if old is not None and old.look is not None and old.look.known == entry.written:
                entry.look = old.look

    def doubtful(self) -> Mapping[Part, Look]:
        """Return the looks that are not over."""
        return {part: entry.look for part, entry in self.entries.items() if entry.look is not None}

    def cleared(self, part: Part, clear: Clear, alive: Collection[Mark]) -> None:
        """End the doubt about a partition.

        Args:
            part: Which one.
            clear: What the look has come to.
            alive: Those of its marks whose rows are still in the outbox table.
        """
        entry = self.entries[part]
        entry.current, entry.look, entry.is_proven = clear.position, None, False
        # Also rows that are gone by now: this process may have been paused while another one delivered what it has
        # taken.
        self.found.update(clear.marks)
        self.alive.update(alive)

    def outlived(self, alive: Collection[Mark]) -> None:
        """Note which of the rows that looks have found are still to be settled: positions wait for these alone."""
        self.alive.intersection_update(alive)

    def may_send(self, part: Part, routing: Route) -> bool:
        """Return whether nothing is in doubt that could be of a row for this partition."""
        return part in self.entries and self.entries[part].look is None and self._is_alone(part, routing)

    def may_begin(self, part: Part, routing: Route) -> bool:
        """Return whether the shard has not sent to this partition yet, and may begin to do so."""
        return part not in self.entries and self._is_alone(part, routing)

    def _is_alone(self, part: Part, routing: Route) -> bool:
        """Return whether no row for this partition can be in doubt in another one."""
        if routing.mark != self.way:
            # Other processes have chosen other partitions, perhaps.
            return False
        return part.topic == routing.topic or all(other.topic != part.topic for other in self.doubtful())

    def reconsider(self) -> None:
        """Put all partitions in doubt: rows are routed anew, and are not met again where late batches have put them."""
        for entry in self.entries.values():
            if entry.look is None:
                entry.look, entry.on_the_way = Look(entry.current), None

    def reroute(self, routing: Route) -> int | None:
        """Return the mark that is to be written before rows are sent as they are routed now; None where none is.

        Without it, nothing is sent that is routed otherwise than what may be in doubt.
        """
        is_known = self.way == routing.mark and (self.routing == routing.mark or bool(self.alive))
        if is_known or self.doubtful():
            return None
        # What was found is in doubt for the next process, until its rows are settled.
        return MIXED if self.alive else routing.mark

    def rerouted(self, token: int, routing: Route) -> None:
        """Note that this is written."""
        self.held, self.way = Held(token, self.held.producer, {}), routing.mark

    def next_sequence(self, part: Part) -> int:
        """Return the sequence number of the next batch."""
        return self.entries[part].current.next_sequence

    def may_be_there(self, row_id: int) -> bool:
        """Return whether a row may be in a log, of which that is not known yet."""
        doubtful = [entry for entry in self.entries.values() if entry.look is not None]
        return any(entry.on_the_way is None or row_id in entry.on_the_way for entry in doubtful)

    def sent(self, part: Part, row_ids: Iterable[int]) -> None:
        """Note that a batch of these rows is about to be sent: from here on it is in doubt."""
        entry = self.entries[part]
        # Until a batch was read back, what arrives in its place may be a late one, of other rows.
        entry.look, entry.on_the_way = Look(entry.current), frozenset(row_ids) if entry.is_proven else None

    def refused(self, part: Part) -> None:
        """Note that Kafka has checked the batch, and has not taken it."""
        self.entries[part].look = None

    def contradicted(self, part: Part) -> None:
        """Note that something else than the batch seems to be in its place."""
        entry = self.entries[part]
        entry.look, entry.on_the_way = Look(entry.current, must_read=True), None

    def is_to_be_read_back(self, part: Part, offset: int) -> bool:
        """Return whether an acknowledgement alone does not say that this very batch is in the log."""
        entry = self.entries[part]
        return not entry.is_proven or offset <= entry.current.last_offset

    def accepted(self, part: Part, offset: int, size: int) -> None:
        """Note a batch that is in the log, at this offset, and read back where that was asked for."""
        entry = self.entries[part]
        sequence = (entry.current.next_sequence + size) % SEQUENCES
        entry.current, entry.look, entry.is_proven = Position(sequence, offset + size - 1), None, True

    def move(self, new_token: int, settled: Iterable[Mark]) -> Move:
        """Return what is to be written with the outcomes of a hand-over.

        Positions stay behind a record that was found, until its row is settled: else the next process would not find
        it.

        Args:
            new_token: For this write.
            settled: The rows that are written as delivered.
        """
        self._rest = self.alive.difference(settled)
        is_free = not self._rest
        positions = {part: e.current for part, e in self.entries.items() if e.current != e.written} if is_free else {}
        return Move(self.token, new_token, positions)

    def stay_behind(self, move: Move, kept: Iterable[Mark]) -> Move | None:
        """Return what is to be written after a move, since the table keeps rows whose records are in a log.

        Without it, the next process would look behind these records only, and send the rows again.

        Args:
            move: What was written, and is not committed.
            kept: These rows.
        """
        self._rest = {*self._rest, *kept}
        if not move.positions:
            return None
        return Move(move.new_token, move.new_token, {part: self.entries[part].written for part in move.positions})

    def moved(self, move: Move) -> None:
        """Note that this is written for good."""
        self.alive, self.found = self._rest, {*self._rest}
        for part, position in move.positions.items():
            self.entries[part].written = position
        self.held = Held(move.new_token, self.held.producer, {})


def is_read_back(sent: Sequence[Mark], found: Sequence[Mark]) -> bool:
    """Return whether the batch at the offset that was answered is the one that was sent."""
    return list(sent) == list(found)


def _in_doubt(position: Position) -> Entry:
    return Entry(position, position, Look(position))
