"""Remembers verdicts whose outcomes could not be written, so that their rows are not sent again."""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from faststream_outbox._engine.health import Log
from faststream_outbox._engine.relaying.account import Account, Answer
from faststream_outbox._store.protocol import HandOver, LeftOut
from faststream_outbox._values.explanation import Explanation, unexplained
from faststream_outbox._values.outcome import Deferred
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard

DEFAULT_IN_FLIGHT = 1000
"""Two lanes with 500 rows each."""

MOST_SET_ASIDE = 1000
"""A forwarder that has set so many rows aside sends no more: something is wrong with more than single rows."""

LOOK_UP_SECONDS = 5.0
"""How often it is asked whether the rows are still there. Of some the commit went through and only its answer was lost,
others were settled by another process, or deleted by a person."""

WRITE_SECONDS = 1.0
"""How often outcomes are tried while the forwarder sends nothing."""

LATE_SECONDS = 5.0
"""An outcome that has waited so long for a hand-over that takes its row is tried by one that sends nothing: rows of its
shard may be left out for hours, since they are for a part that is down or are not to be sent now."""

LINE_SECONDS = 10.0
"""Between two lines of the log about rows that are set aside; those of the time between are named in the next one."""

_SHOWN = 10
"""Rows that one line of the log names."""


class Remembered:
    """The verdicts of a forwarder's lanes whose outcomes are not written.

    A hand-over that fails behind the answer of its destination leaves its verdicts here. The next hand-over that takes
    such a row, locked and unchanged, writes the outcome and does not send the row. So a failure of the database repeats
    nothing, however long it lasts, as long as the process lives. During a pause, an outage and at a stop there are
    hand-overs that send nothing, and write these outcomes alone. So there are for rows that no other one comes to.

    Where the database refuses an outcome for good, its row is *set aside*: hand-overs leave it out, and now and then
    one of them tries to write it.

    Args:
        name: The forwarder's.
        log: Gets a line for rows that are set aside.
        explain: Puts an error of the database into words.
        in_flight: The most rows that all lanes have in hand at once. While more verdicts are to be written, nothing is
            sent: neither what is kept here may grow, nor what a dying process would repeat.
    """

    def __init__(
        self,
        name: str = "",
        log: Log = lambda *_: None,
        explain: Callable[[BaseException], Explanation] = unexplained,
        *,
        in_flight: int = DEFAULT_IN_FLIGHT,
    ) -> None:
        self._name = name
        self._log = log
        self._explain = explain
        self._in_flight = in_flight
        self._answers: dict[int, Answer] = {}
        """By the ids of their rows."""
        self._at_work: dict[Shard, Account] = {}
        """The hand-overs of this forwarder that are under way."""
        self._next_look_up = 0.0
        self._next_write = 0.0
        self._is_full = False
        self._unnamed: list[Answer] = []
        self._cannot_defer = False
        self._last_line = -math.inf
        self.last_error: BaseException | None = None
        """Why the last row was set aside; None where none is."""

    @property
    def set_aside(self) -> int:
        """How many rows are set aside; may be asked from any thread."""
        return sum(1 for answer in [*self._answers.values()] if answer.error is not None)

    @property
    def is_empty(self) -> bool:
        """Whether all outcomes are written."""
        return not self._answers

    def __len__(self) -> int:
        """Return how many outcomes are not written."""
        return len(self._answers)

    def seconds_to_wait(self) -> float:
        """Return for how long no rows should be taken, since so many are set aside that none may be sent."""
        if not self._is_full:
            return 0.0
        now = time.monotonic()
        return max(0.0, min((answer.next_try - now for answer in self._answers.values()), default=0.0))

    def left_out(self) -> Sequence[LeftOut]:
        """Return the rows that the next hand-over is not to take."""
        now = time.monotonic()
        return [
            LeftOut(answer.shard, row_id, answer.row.key if answer.holds_key else None)
            for row_id, answer in self._answers.items()
            if answer.is_left_out(now)
        ]

    def rows_to_write(self, *, are_sending: bool = False, is_last: bool = False) -> Mapping[Shard, Sequence[int]]:
        """Return the rows whose outcomes it is time to try without sending anything, by their shard.

        With one outcome of a shard, all others are tried that are not left out.

        Args:
            are_sending: Whether there are other hand-overs, which are to come first.
            is_last: Whether nobody tries them afterwards, so that it is time for all of them.
        """
        now = time.monotonic()
        if not self._answers or (now < self._next_write and not is_last):
            return {}
        patience = LATE_SECONDS if are_sending else 0.0
        shards = {
            answer.shard
            for answer in self._answers.values()
            if is_last or now >= max(answer.next_try, answer.made_at) + patience
        }
        if shards:
            self._next_write = now + WRITE_SECONDS
        rows: defaultdict[Shard, list[int]] = defaultdict(list)
        for row_id, answer in self._answers.items():
            if answer.shard in shards and (is_last or not answer.is_left_out(now)):
                rows[answer.shard].append(row_id)
        return rows

    def writing_failed(self, seconds: float) -> None:
        """Note that such a try has failed after so many seconds: others come first for as long as it has taken."""
        self._next_write = time.monotonic() + max(seconds, WRITE_SECONDS)

    def seconds_to_next_write(self) -> float | None:
        """Return for how long ``rows_to_write`` is empty; None if all outcomes are written."""
        if not self._answers:
            return None
        next_try = min(answer.next_try for answer in self._answers.values())
        return max(0.0, max(next_try, self._next_write) - time.monotonic())

    @contextmanager
    def account(self, seconds: float, *, is_found_again: bool = False) -> Iterator[Account]:
        """Keep account of one hand-over; remember what it has not written.

        Args:
            seconds: How long it takes at most.
            is_found_again: Whether the next hand-over finds out at the destination what has become of the rows. Then
                nothing of a failed hand-over is remembered: the acknowledgement of a process whose transaction is lost
                may be one of another process's batch.
        """
        account = Account(time.monotonic() + seconds)
        try:
            yield account
        except BaseException:
            self._keep(account, () if is_found_again else account.answers())
            raise
        else:
            self._close(account)
        finally:
            for shard in account.shards:
                if self._at_work.get(shard) is account:
                    del self._at_work[shard]

    def begin(self, account: Account, taken: HandOver) -> None:
        """Enter the rows that were taken: some are answered already, the rest is sent."""
        account.taken = taken
        others = [self._at_work.get(shard) for shard in taken.shards]
        if any(other is not None and time.monotonic() < other.until for other in others):
            # Their transaction was lost, and another lane still has rows of it at the destination.
            return
        self._at_work.update(dict.fromkeys(taken.shards, account))
        if self._answers:
            account.known, account.to_send = self._recall(taken.rows)
        else:
            account.to_send = taken.rows

    def give_up(self) -> None:
        """Forget all outcomes, and log how many: the lanes have ended, and their rows are sent again."""
        if answers := [*self._answers.values()]:
            self._say(
                logging.WARNING,
                f"it has stopped, and gives up {len(answers)} outcomes that could not be written: these rows are sent "
                f"again, unless it sends exactly once: {_names(answers)}",
            )
        self._forget([*self._answers])

    def to_look_up(self) -> Sequence[OutboxRow]:
        """Return the rows of which it is time to ask whether anybody has settled them meanwhile."""
        now = time.monotonic()
        if not self._answers or now < self._next_look_up:
            return ()
        self._next_look_up = now + LOOK_UP_SECONDS
        return [answer.row for answer in self._answers.values()]

    def looked_up(self, rows: Sequence[OutboxRow], unsettled: Collection[int]) -> None:
        """Forget the rows that were asked about and are settled."""
        self._forget(row.id for row in rows if row.id not in unsettled)

    def _recall(self, rows: Sequence[OutboxRow]) -> tuple[list[Answer], list[OutboxRow]]:
        known: list[Answer] = []
        to_send: list[OutboxRow] = []
        held: set[tuple[str, str | None]] = set()
        has_room = self._has_room()
        for row in rows:
            if (answer := self._answer_on(row)) is not None:
                known.append(answer)
                if answer.holds_key and row.key is not None:
                    held.add((row.queue, row.key))
            elif has_room and (row.queue, row.key) not in held:
                to_send.append(row)
        return known, to_send

    def _answer_on(self, row: OutboxRow) -> Answer | None:
        answer = self._answers.get(row.id)
        if answer is None:
            return None
        if not answer.is_about(row):
            self._forget([row.id])
            return None
        return answer

    def _has_room(self) -> bool:
        set_aside = self.set_aside
        return set_aside < MOST_SET_ASIDE and len(self._answers) - set_aside <= self._in_flight

    def _keep(self, account: Account, answers: Iterable[Answer]) -> None:
        """Remember what a hand-over has learned that failed, or was cut off."""
        now = time.monotonic()
        for answer in account.known:
            answer.put_off(now)
        self._answers.update((answer.row.id, answer) for answer in answers)

    def _close(self, account: Account) -> None:
        """Forget what is written, and set aside what the database has refused."""
        if account.deferred:
            self._say_deferred(account)
        if not self._answers and not account.unwritten:
            return
        refused = {unwritten.settlement.row.id: unwritten.error for unwritten in account.unwritten}
        written = [answer for answer in account.known if answer.row.id not in refused]
        self._forget(answer.row.id for answer in written)
        self._set_aside(refused, [*account.known, *account.answers()])
        self._say_set_aside(now=time.monotonic())
        self._say_written([answer for answer in written if answer.error is not None])
        self._watch()

    def _set_aside(self, refused: dict[int, BaseException], answers: Iterable[Answer]) -> None:
        now = time.monotonic()
        for answer in answers:
            error = refused.get(answer.row.id)
            if error is None:
                continue
            if answer.error is None:
                self._unnamed.append(answer)
            answer.error = self.last_error = error
            answer.put_off(now)
            self._answers[answer.row.id] = answer

    def _forget(self, row_ids: Iterable[int]) -> None:
        for row_id in row_ids:
            self._answers.pop(row_id, None)
        if not self.set_aside:
            self.last_error = None

    def _watch(self) -> None:
        """Log when so many rows are set aside that no more are sent, and when that is over."""
        was_full, self._is_full = self._is_full, self.set_aside >= MOST_SET_ASIDE
        if self._is_full and not was_full:
            self._say(
                logging.ERROR,
                f"takes no more rows: {self.set_aside} are set aside, since their outcomes cannot be written. "
                "It goes on when some of them can",
            )
        elif was_full and not self._is_full:
            self._say(logging.INFO, "takes rows again")

    def _say_set_aside(self, now: float) -> None:
        answers, error = self._unnamed, self.last_error
        if not answers or error is None or now - self._last_line < LINE_SECONDS:
            return
        self._unnamed, self._last_line = [], now
        self._say(
            logging.ERROR,
            f"the database refuses outcomes of these rows, which are set aside: {_names(answers)}: "
            f"{self._explain(error).text}. Correct what it names (a trigger, a constraint, a permission), or delete "
            "the rows: they are not sent again while this process lives, and outcomes are tried again within a minute",
        )

    def _say_deferred(self, account: Account) -> None:
        """Log when rows of a part that is down begin to stay in the way of others."""
        refused = [each for each in account.unwritten if isinstance(each.settlement.outcome, Deferred)]
        if refused and not self._cannot_defer:
            self._say(
                logging.WARNING,
                f"the database refuses to defer rows of a part of the destination that is down, such as "
                f"{refused[0].settlement.row.id} in {refused[0].settlement.row.queue!r}: "
                f"{self._explain(refused[0].error).text}. They stay where they are, and others wait behind them",
            )
        self._cannot_defer = bool(refused)

    def _say_written(self, answers: Sequence[Answer]) -> None:
        if answers:
            self._say(logging.INFO, f"outcomes of rows that were set aside are written: {_names(answers)}")

    def _say(self, level: int, message: str) -> None:
        self._log(level, f"forwarder {self._name}: {message}", None)


def _names(answers: Sequence[Answer]) -> str:
    names = ", ".join(f"{answer.row.id} in {answer.row.queue!r}" for answer in answers[:_SHOWN])
    return f"{names} and {len(answers) - _SHOWN} more" if len(answers) > _SHOWN else names
