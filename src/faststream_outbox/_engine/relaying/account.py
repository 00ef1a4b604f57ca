"""What one hand-over has come to, row by row."""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from faststream_outbox._engine.backoff import Backoff
from faststream_outbox._engine.relaying.sender import Sent
from faststream_outbox._store.protocol import HandOver
from faststream_outbox._values.outcome import Accepted, Dead, Deferred, Retry, Settlement, Unsent, Unwritten, Verdict
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard

RETRY_SECONDS = (1.0, 60.0)
"""Between two attempts to write the outcome of a row that is set aside: at first, and in the end."""


@dataclass(slots=True, eq=False)
class Answer:
    """A verdict on a row whose outcome is not written yet."""

    settlement: Settlement
    """Of the row without its payload and headers: the database has them."""
    contents: int
    """Their hash."""
    verdict: Verdict
    shard: Shard
    made_at: float
    """When the verdict was made, by the monotonic clock."""
    error: BaseException | None = None
    """Why the database refuses the outcome; the row is set aside then."""
    next_try: float = 0.0
    backoff: Backoff = field(default_factory=lambda: Backoff(*RETRY_SECONDS))

    @property
    def row(self) -> OutboxRow:
        """The row without its payload and headers."""
        return self.settlement.row

    @property
    def holds_key(self) -> bool:
        """Whether the later rows of its key wait for it, as they do once the outcome is written."""
        outcome = self.settlement.outcome
        return isinstance(outcome, Retry) or (isinstance(outcome, Dead) and outcome.holds_key)

    def is_about(self, row: OutboxRow) -> bool:
        """Return whether a row is still the one that was sent: not replayed, not changed, not another with its id."""
        return _slim(row) == self.row and _contents(row) == self.contents

    def is_left_out(self, now: float) -> bool:
        """Return whether hand-overs go on without the row for now."""
        return self.error is not None and now < self.next_try

    def put_off(self, now: float) -> None:
        """Wait longer than the last time before the next attempt to write the outcome."""
        self.next_try = now + self.backoff.next()

    def to_write(self, now: float) -> Settlement:
        """Return the settlement; the delay of a retry counts from the verdict."""
        row, outcome = self.settlement
        if isinstance(outcome, Retry):
            outcome = replace(outcome, delay=max(0.0, outcome.delay - (now - self.made_at)))
        return Settlement(row, outcome)


@dataclass(slots=True, eq=False)
class Account:
    """The account of one hand-over: what was taken, what was known already, what was answered and what is written."""

    until: float
    """When the hand-over will have ended, by the monotonic clock."""
    taken: HandOver | None = None
    known: Sequence[Answer] = ()
    """Answers of earlier hand-overs on rows of this one."""
    to_send: Sequence[OutboxRow] = ()
    sent: Sent = field(default_factory=Sent)
    """Of the rows that were to be sent."""
    settlements: Sequence[Settlement] = ()
    """What follows from that."""
    began: float = field(default_factory=time.monotonic)
    taken_at: float = 0.0
    answered_at: float = 0.0
    deferred: Collection[str] = ()
    """Parts of the destination for which rows are to be deferred."""
    unwritten: Sequence[Unwritten] = ()

    @property
    def are_deferred(self) -> bool:
        """Whether rows are deferred with the commit: PostgreSQL has not refused to write all of it."""
        if not self.deferred:
            return False
        refused = sum(isinstance(unwritten.settlement.outcome, Deferred) for unwritten in self.unwritten)
        return refused < sum(isinstance(outcome, Deferred) for _, outcome in self.settlements)

    @property
    def shards(self) -> Sequence[Shard]:
        return () if self.taken is None else self.taken.shards

    @property
    def has_worked(self) -> bool:
        """Whether there was anything to send or to write."""
        return bool(self.to_send or self.known)

    def answered(self, sent: Sent, settlements: Sequence[Settlement], deferred: Collection[str] = ()) -> None:
        """Note what the destination has answered, and for which parts of it rows are to be deferred."""
        self.sent, self.settlements, self.answered_at = sent, settlements, time.monotonic()
        self.deferred = deferred

    def to_write(self) -> Sequence[Settlement]:
        """Return the settlements of this hand-over."""
        if not self.known:
            return self.settlements
        now = time.monotonic()
        return [*(answer.to_write(now) for answer in self.known), *self.settlements]

    def total(self) -> Sent:
        """Return what has become of all rows that were taken; the verdicts are in no order."""
        rows = () if self.taken is None else self.taken.rows
        left = len(rows) - len(self.known) - len(self.to_send)
        if not self.known and not left:
            return self.sent
        verdicts = [*(answer.verdict for answer in self.known), *self.sent.verdicts, *[Unsent()] * left]
        return self.sent._replace(verdicts=verdicts)

    def answers(self) -> Iterator[Answer]:
        """Yield an answer for each settlement of this hand-over."""
        if self.taken is None or not self.settlements:
            return
        verdicts = {row.id: verdict for row, verdict in zip(self.to_send, self.sent.verdicts, strict=True)}
        shards = {row.id: shard for row, shard in zip(self.taken.rows, self.taken.row_shards(), strict=True)}
        for settlement in self.settlements:
            row, outcome = settlement
            if isinstance(outcome, Deferred):
                # Nothing was answered to it.
                continue
            slim = Settlement(_slim(row), outcome)
            yield Answer(slim, _contents(row), verdicts[row.id], shards[row.id], self.answered_at)

    def written(self) -> tuple[Sequence[Verdict], Sequence[Settlement]]:
        """Return the verdicts and settlements that have become final with the commit."""
        if not self.known and not self.unwritten:
            return self.sent.verdicts, self.settlements
        final = self.final()
        return [answer.verdict for answer in final], [answer.settlement for answer in final]

    def kept(self) -> Sequence[OutboxRow]:
        """Return the rows that the destination has, and that the database refuses to delete."""
        if not self.unwritten:
            return ()
        refused = {unwritten.settlement.row.id for unwritten in self.unwritten}
        answers = [answer for answer in (*self.known, *self.answers()) if answer.row.id in refused]
        return [answer.row for answer in answers if isinstance(answer.verdict, Accepted)]

    def final(self) -> Sequence[Answer]:
        """Return the answers whose outcomes have become final with the commit."""
        refused = {unwritten.settlement.row.id for unwritten in self.unwritten}
        return [answer for answer in (*self.known, *self.answers()) if answer.row.id not in refused]


def _slim(row: OutboxRow) -> OutboxRow:
    return row._replace(payload=b"", headers={}, acquired_at=None)


def _contents(row: OutboxRow) -> int:
    return hash((row.payload, frozenset(row.headers.items())))
