"""What a process knows of the shards whose rows it sends: where they stand in each partition, and what is in doubt."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from faststream_outbox._values.position import Held, Mark, Move, Part, Position
from faststream_outbox._values.run import Run
from faststream_outbox.forwarders.kafka.exact.look import SEQUENCES, Clear, Look


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
    is_strange: bool = True
    """Whether another process may have sent these rows, and it is not known yet which of them."""

    def __post_init__(self) -> None:
        self.entries = {part: _in_doubt(position) for part, position in self.held.positions.items()}
        self.is_strange = bool(self.entries)

    @property
    def token(self) -> int:
        return self.held.token

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
        self.is_strange = self.is_strange and bool(self.doubtful())

    def may_send(self, part: Part) -> bool:
        """Return whether nothing is in doubt that could be of a row for this partition.

        Another process may have chosen other partitions for these rows. This one sends a row to one partition only.
        """
        return not self.is_strange and part in self.entries and self.entries[part].look is None

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
