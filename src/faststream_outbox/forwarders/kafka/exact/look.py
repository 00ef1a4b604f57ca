"""What the log of a partition says about a record batch whose fate is not known."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from faststream_outbox._values.position import Mark, Position

SEQUENCES = 2**31
"""Sequence numbers are counted modulo this: Kafka's DefaultRecordBatch.incrementSequence."""

PATIENCE = 20
"""Looks after which a batch that a leader tells of, and that cannot be read, is taken for a deleted one if records were
deleted there. A new leader shows all that it has within a few looks."""


TIMES_MISSING = 5
"""Looks after which a partition that is missing is believed to be gone: a server that has just started may not know of
all topics."""


class Batch(NamedTuple):
    """A record batch of this producer, as the log has it."""

    offset: int
    base_sequence: int
    size: int
    """The records that it was sent with; compaction may have removed some."""
    marks: Sequence[Mark]
    """Of the records that are still there."""


class Log(NamedTuple):
    """What the leader of a partition says of it."""

    next_sequence: int | None
    """Behind the last batch of this producer that the leader knows of; None where it does not know the producer.

    It is a hint. The leader may know of a batch that is not replicated and will be gone.
    """
    start: int
    """The first offset that can be read."""
    end: int
    """Behind the last offset that can be read: the high watermark."""


class Problem(StrEnum):
    """Why it cannot be known whether a message was sent before."""

    DELETED = "retention, or a person, has deleted records before it was looked whether they were ours"
    COMPACTED = "compaction has removed records before it was looked which rows they were made of"
    ANOTHER_LOG = "the log ends before records that were acknowledged: the topic was made anew, or has lost its end"
    LOST = "the leader has forgotten batches that were acknowledged, as after an unclean election"


@dataclass(frozen=True, slots=True)
class Clear:
    """Nothing is in doubt any more."""

    position: Position
    """Where to go on."""
    marks: Collection[Mark] = ()
    """The records that are in the log: their rows are delivered."""
    problems: Sequence[Problem] = ()


@dataclass(frozen=True, slots=True)
class Read:
    """The log is to be read from ``offset`` on; then the leader is asked again."""

    offset: int


@dataclass(frozen=True, slots=True)
class Wait:
    """The leader is to be asked again, later."""

    why: str


Finding: TypeAlias = Clear | Read | Wait


def distance(sequence: int, other: int) -> int:
    """Return how far ``sequence`` is ahead of ``other``; less than zero where it is behind."""
    ahead = (sequence - other) % SEQUENCES
    return ahead - SEQUENCES if ahead >= SEQUENCES // 2 else ahead


@dataclass(slots=True)
class Look:
    """Finds out what has become of the last batch that was sent to a partition, by whichever process.

    What the leader says of its producers only decides whether to read. What is delivered is decided by what can be read
    at the leader: that is on all in-sync replicas.

    Args:
        known: Where the shard stood when the last outcome was written.
        must_read: Whether the log is read whatever the leader says: it has just contradicted itself.
    """

    known: Position
    must_read: bool = False
    _offset: int | None = None
    """Up to here the log is read."""
    _batches: list[Batch] = field(default_factory=list)
    _problems: list[Problem] = field(default_factory=list)
    _waits: int = 0
    _times_missing: int = 0
    _has_gap: bool = False
    """Whether a part of the log gave nothing to read."""
    _is_whole: bool = False
    """Whether it has begun again, with the first record of the log."""

    @property
    def offset(self) -> int:
        """Where to read on."""
        assert self._offset is not None  # noqa: S101 - it is asked for behind a ``Read``
        return self._offset

    def judge(self, log: Log) -> Finding:
        """Return what follows from what the leader says now, and from what was read before."""
        if self._offset is None:
            if (finding := self._before_reading(log)) is not None:
                return finding
            self._offset = self._begin(log)
        if self._offset < log.start:
            # Retention has gone past what was still to be read.
            self._note(Problem.DELETED)
            self._offset = log.start
        if self._offset < log.end:
            return Read(self._offset)
        finding = self._behind_the_end(log)
        if isinstance(finding, Wait) and self._waits > PATIENCE and not self._is_whole:
            # A topic made anew may have the batch where the topic before it had older records.
            self._is_whole, self._offset, self._batches = True, log.start, []
            return Read(log.start) if log.start < log.end else finding
        return finding

    def settle(self, log: Log) -> Clear | None:
        """Return what follows from what was read; None if the leader is to be asked again.

        In a log that others write to there is always more to read. What has come since the leader was asked cannot be
        of an earlier process, or is met when the next batch is sent.

        Args:
            log: What the leader said before the reading.
        """
        if self.offset < log.end or log.next_sequence not in (None, self._expected()):
            return None
        finding = self._behind_the_end(log)
        return finding if isinstance(finding, Clear) else None

    def _expected(self) -> int:
        if not self._batches:
            return self.known.next_sequence
        return (self._batches[-1].base_sequence + self._batches[-1].size) % SEQUENCES

    def _note(self, problem: Problem) -> None:
        if problem not in self._problems:
            self._problems.append(problem)

    def missing(self) -> Clear | Wait:
        """Return what follows where the cluster says that there is no such partition."""
        if self.known.last_offset < 0:
            return Clear(self.known)
        self._times_missing += 1
        if self._times_missing < TIMES_MISSING:
            return Wait("the cluster does not know the partition")
        # The topic may be made anew, and is then read from its beginning.
        return Clear(Position(self.known.next_sequence, -1), problems=(Problem.ANOTHER_LOG,))

    def read(self, batches: Sequence[Batch], next_offset: int) -> None:
        """Note what was read: the batches of this producer before ``next_offset``."""
        # Earlier batches are settled, wherever they are.
        self._batches += [one for one in batches if distance(one.base_sequence, self.known.next_sequence) >= 0]
        self._offset = next_offset

    def skipped(self) -> None:
        """Note that from here to the end there was nothing to read."""
        self._has_gap = True

    def _before_reading(self, log: Log) -> Finding | None:
        if log.end <= self.known.last_offset:
            if log.next_sequence is not None and distance(log.next_sequence, self.known.next_sequence) >= 0:
                # A new leader learns only after a moment how far its log may be read. A topic made anew looks like that
                # for good, if a late batch has come to it.
                self._waits += 1
                if self._waits <= PATIENCE:
                    return Wait("the leader does not show yet what was acknowledged")
                self._waits = 0
            return None
        if log.next_sequence == self.known.next_sequence and not self.must_read:
            return Clear(self.known)
        return None

    def _begin(self, log: Log) -> int:
        if log.end <= self.known.last_offset:
            self._note(Problem.ANOTHER_LOG)
            return log.start
        if log.start > self.known.last_offset + 1:
            self._note(Problem.DELETED)
        return max(log.start, self.known.last_offset + 1)

    def _is_deleted(self, log: Log) -> bool:
        """Return whether a batch that the leader tells of was deleted, and is not one that will be read soon."""
        self._waits += 1
        may_be = Problem.DELETED in self._problems or (Problem.ANOTHER_LOG in self._problems and log.start > 0)
        return may_be and self._waits > PATIENCE

    def _behind_the_end(self, log: Log) -> Finding:
        expected = self.known.next_sequence
        problems = [*self._problems]
        if any(batch.offset <= self.known.last_offset for batch in self._batches):
            problems.append(Problem.ANOTHER_LOG)
        is_elsewhere = Problem.ANOTHER_LOG in problems
        for batch in self._batches:
            is_gap = distance(batch.base_sequence, expected) > 0 and not is_elsewhere
            if is_gap or len(batch.marks) < batch.size:
                problems.append(Problem.COMPACTED)
            expected = (batch.base_sequence + batch.size) % SEQUENCES
        ahead = 0 if log.next_sequence is None else distance(log.next_sequence, expected)
        if ahead > 0 and not self._is_deleted(log):
            return Wait("the leader tells of a batch that cannot be read yet")
        if ahead < 0 and not is_elsewhere:
            problems.append(Problem.LOST)
        if self._has_gap and log.next_sequence is None:
            # Nobody knows any more whether something of ours was there.
            problems.append(Problem.COMPACTED)
        if Problem.DELETED in problems and ahead == 0 and log.next_sequence is not None:
            # What was deleted was not ours: the sequences have no gap.
            problems.remove(Problem.DELETED)
        marks = tuple(mark for batch in self._batches for mark in batch.marks)
        # Where no batch is found, all that was read is not ours, and is not read again.
        end = log.end - 1 if is_elsewhere else max(log.end - 1, self.known.last_offset)
        return Clear(Position((expected + ahead) % SEQUENCES, end), marks, tuple(dict.fromkeys(problems)))
