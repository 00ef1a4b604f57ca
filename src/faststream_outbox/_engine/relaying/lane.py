"""Carries rows from the table to a destination."""

import asyncio
import logging
import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence

from faststream_outbox._engine.failure import FailurePolicy
from faststream_outbox._engine.health import Health, Log
from faststream_outbox._engine.meter import NO_METER, HandedOver, Meter
from faststream_outbox._engine.pacer import Pacer
from faststream_outbox._engine.pauses import Pauses
from faststream_outbox._engine.relaying.account import Account, Answer
from faststream_outbox._engine.relaying.breaker import BreakerState
from faststream_outbox._engine.relaying.connecting import Connector
from faststream_outbox._engine.relaying.destination import Destination
from faststream_outbox._engine.relaying.positions import Positions
from faststream_outbox._engine.relaying.sender import Prepare, Sender, Sent
from faststream_outbox._engine.relaying.team import Team
from faststream_outbox._engine.rounds import Rounds
from faststream_outbox._engine.service import DATABASE_SECONDS, Service
from faststream_outbox._engine.wakeups import Wakeup
from faststream_outbox._store.positions import NO_MOVES
from faststream_outbox._store.protocol import DEFAULT_BATCH_BYTES, HandOver, LeftOut, Store
from faststream_outbox._values.outcome import (
    ACCEPTED,
    DELIVERED,
    Accepted,
    Dead,
    Delivered,
    Dropped,
    Outcome,
    Poison,
    Refused,
    Settlement,
    Unsent,
    Verdict,
    slot_of,
)
from faststream_outbox._values.position import Move
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard

FULL_SECONDS = 1.0
"""How long a lane sleeps at most while so many rows are set aside that it may send no others."""

MOST_MADE_DUE = 10_000
"""Rows of a part that is back whose waiting is ended at once."""


class Lane(Service):
    """One hand-over at a time: lock rows, send them, write the outcomes, commit.

    The rows are held by row locks of one short transaction. When the process dies, PostgreSQL gives them back at once.

    Args:
        name: The forwarder's name with the lane's number.
        store: Where rows are.
        destination: Where they go.
        team: What it shares with the other lanes of its forwarder.
        rounds: The shards to take rows from.
        wakeup: Rings when there may be new rows.
        pacer: Decides when to look again.
        failure: Decides what becomes of refused rows.
        batch_size: The most rows of one hand-over.
        batch_bytes: The most bytes of their payloads and headers; a single row may have more.
        send_timeout: Seconds after which a hand-over is given up; its rows are sent again later.
        prepare: Returns what is sent of each row; None sends rows as they are.
        positions: Where the destination keeps how far it has come; None where it does not.
        pauses: What is paused for all processes; of these, the keys.
        health: The database's.
        log: Gets a line for each dead letter.
        meter: Told of each hand-over that had rows.
    """

    def __init__(
        self,
        name: str,
        *,
        store: Store,
        destination: Destination,
        team: Team,
        rounds: Rounds,
        wakeup: Wakeup,
        pacer: Pacer,
        failure: FailurePolicy,
        batch_size: int,
        batch_bytes: int = DEFAULT_BATCH_BYTES,
        send_timeout: float,
        prepare: Prepare | None = None,
        positions: Positions | None = None,
        pauses: Pauses | None = None,
        health: Health,
        log: Log,
        meter: Meter = NO_METER,
    ) -> None:
        super().__init__(f"outbox-lane-{name}", health)
        # In one round it connects, sends for the time-out of a wave or two, and asks the database a few times.
        self.longest_work += 4 * send_timeout
        self._store = store
        self._breaker, self._pause, self._tally = team.breaker, team.pause, team.tally
        self._remembered, self._deferrer = team.remembered, team.deferrer
        self._destination, self._connector = destination, Connector(destination, send_timeout)
        self._positions = positions
        self._pauses = pauses or Pauses()
        self._sender = Sender(destination, send_timeout, prepare, singly=failure.hold_key)
        self._rounds = rounds
        if positions is not None:
            # At first all are in doubt. Many are looked at as quickly as one, and the other lanes have their share.
            rounds.breadth = max(1, len(rounds.all) // team.breaker.lanes)
        self._wakeup = wakeup
        self._pacer = pacer
        self._failure = failure
        self._batch_size = batch_size
        self._batch_bytes = batch_bytes
        self._send_timeout = send_timeout
        self._log = log
        self._meter, self._forwarder, self._address = meter, team.name, team.address
        self._found = False
        self._has_tried_last = False
        """Whether the outcomes that are remembered were tried for the last time, at a stop."""
        self._last_tries_end = math.inf

    def start(self) -> None:
        self._has_tried_last, self._last_tries_end = False, math.inf
        super().start()

    def interrupt(self) -> None:
        self._wakeup.ring()
        self._pause.wake()
        self._breaker.wake()
        self._connector.give_up()

    def has_more(self) -> bool:
        is_over = self._has_tried_last or time.monotonic() >= self._last_tries_end
        return not (is_over or self._remembered.is_empty)

    async def run_once(self) -> None:
        if self.is_stopping:
            # Where that fails, the loop tries it again until the stop's time is over; a stop may have all the time.
            self._last_tries_end = min(self._last_tries_end, time.monotonic() + DATABASE_SECONDS)
            await self._write_remembered(is_last=True)
            self._has_tried_last = True
            return
        if self._pause.is_on:
            await self._sit_out()
            return
        await self._write_remembered(are_sending=self._breaker.state is BreakerState.CLOSED)
        if (wait := self._remembered.seconds_to_wait()) > 0:
            await self.sleep(min(wait, FULL_SECONDS))
            return
        async with self._breaker.turn() as may_go:
            if not may_go:
                return
            rest = await self._use_turn()
        # From here on the transaction is over: while the lane rests, its rows and its connection are free, and another
        # lane may try the destination.
        if rest is not None:
            await self.sleep(rest)
            return
        self._rounds.finish()
        found, self._found = self._found, False
        with self.resting():
            await self._pacer.rest(found=found, at_most=self._rounds.seconds_of_rest, is_wanted=self._is_to_look)

    def _is_to_look(self) -> bool:
        """Return whether there is more to be done than to take new rows: then it looks although none is there."""
        is_well = self._destination.is_connected and self._breaker.last_error is None
        return not (is_well and self._remembered.is_empty)

    async def _sit_out(self) -> None:
        """Wait for the end of the pause without a connection, but write outcomes that are remembered."""
        await self._connector.let_go()
        await self._write_remembered()
        if self._pause.is_on and not self.is_stopping:
            with self.resting():
                await self._pause.change(self._remembered.seconds_to_next_write())

    async def _write_remembered(self, *, are_sending: bool = False, is_last: bool = False) -> None:
        """Write outcomes that are remembered, in hand-overs that send nothing."""
        if not is_last:
            await self._look_up()
        for shard, row_ids in self._remembered.rows_to_write(are_sending=are_sending, is_last=is_last).items():
            left = row_ids
            while left:
                only, began = left[: self._batch_size], time.monotonic()
                try:
                    with self._breaker.beside():
                        taken, _ = await self._hand_over([shard], only=only)
                except BaseException:
                    # A lock that a stranger holds must not keep this lane from the other shards.
                    self._remembered.writing_failed(time.monotonic() - began)
                    raise
                left = _without(left, only, taken)

    async def _use_turn(self) -> float | None:
        """Run one hand-over; return the seconds to rest from the destination, or None if nothing is left to take."""
        error = await self._connector.attempt()
        if self.is_stopping or self._pause.is_on:
            return 0.0
        if error is not None:
            return self._breaker.cannot_connect(self.name, error)
        self._breaker.connected(self.name)
        await self._look_up()
        await self._make_due()
        asked = self._rounds.next()
        is_whole = self._rounds.is_whole
        if is_whole:
            # Else it may have rung for a shard that this look leaves out.
            self._wakeup.clear()
        try:
            taken, sent = await self._hand_over(asked, self._remembered.left_out())
        except BaseException:
            self._rounds.narrow()
            raise
        if taken is None:
            self.health.recovered(self.name)
            self._breaker.idle(asked)
            self._wakeup.pass_on()
            return None
        rest = self._note(taken, sent)
        if self._deferrer.back():
            return 0.0
        if is_whole and _leaves_nothing(taken, sent):
            # Another look would be in vain. What was written meanwhile has rung.
            self._wakeup.pass_on()
            return None
        return rest

    async def _look_up(self) -> None:
        """Ask which rows with remembered outcomes were settled meanwhile."""
        if rows := self._remembered.to_look_up():
            async with asyncio.timeout(DATABASE_SECONDS):
                self._remembered.looked_up(rows, await self._store.unsettled(rows))

    async def _make_due(self) -> None:
        """End the waiting of rows whose part of the destination takes rows again."""
        for part in self._deferrer.back():
            # Before the statement: a lane may commit further rows for this part while it runs, and note them.
            self._deferrer.forget(part)
            count = MOST_MADE_DUE
            try:
                async with asyncio.timeout(DATABASE_SECONDS):
                    count = await self._store.make_due(self._rounds.all, slot=slot_of(part), limit=MOST_MADE_DUE)
            finally:
                if count >= MOST_MADE_DUE:
                    self._deferrer.note([part])

    async def _hand_over(
        self, shards: Sequence[Shard], left_out: Sequence[LeftOut] = (), *, only: Sequence[int] | None = None
    ) -> tuple[HandOver | None, Sent]:
        """Run one hand-over; return None for it if no shard has work for this lane.

        With ``only``, it takes these rows alone, and sends nothing: their outcomes are remembered.
        """
        seconds = self._send_timeout + DATABASE_SECONDS
        async with asyncio.timeout(seconds) as limit:
            with self._remembered.account(2 * seconds, is_found_again=self._positions is not None) as account:
                async with self._store.hand_over(
                    shards,
                    limit=self._batch_size,
                    # The key of a row that is left out may be another one in another queue.
                    breadth=1 if left_out else self._rounds.breadth,
                    max_bytes=self._batch_bytes,
                    # By then this lane has given it up, if it is still there.
                    idle_seconds=seconds,
                    left_out=left_out,
                    paused=self._pauses.keys,
                    forwarder=None if self._positions is None else self._positions.forwarder,
                    only=only,
                ) as taken:
                    if taken is None:
                        return None, Sent()
                    account.taken_at = time.monotonic()
                    # However long it took to get the rows: what the destination answers is to be heard.
                    limit.reschedule(asyncio.get_running_loop().time() + seconds)
                    self._rounds.visited(taken.shards[-1])
                    self._remembered.begin(account, taken)
                    if only is not None:
                        account.to_send = ()
                    if self._positions is not None:
                        self._positions.begin()
                    await self._carry(account)
                    moves = await self._settle(account, taken)
        if self._positions is not None:
            self._positions.written(moves)
        self._count(account)
        if account.are_deferred:
            self._deferrer.note(account.deferred)
        return taken, account.total()._replace(are_deferred=account.are_deferred)

    async def _carry(self, account: Account) -> None:
        """Send the rows without an answer, and note the outcomes that follow."""
        began = time.monotonic()
        sent = await self._send(account)
        settlements = self._settlements(account.to_send, sent.verdicts, time.monotonic() - began)
        deferred, parts = self._deferred(account, sent)
        account.answered(sent, [*settlements, *deferred], parts)

    def _deferred(self, account: Account, sent: Sent) -> tuple[Sequence[Settlement], Collection[str]]:
        """Return what is to be put out of the way of other rows, and the parts that these rows are for."""
        taken = account.taken
        if taken is None or sent.partly is None or sent.trouble is not None:
            return (), ()
        # Of several shards each gives a few rows only.
        is_full = taken.has_more and len(taken.shards) == 1
        return self._deferrer.settlements(account.to_send, sent.verdicts, is_full=is_full)

    async def _send(self, account: Account) -> Sent:
        """Send rows, but for those that are found to be delivered."""
        rows = account.to_send
        if self._positions is None or account.taken is None or not rows:
            return await self._sender.send(rows)
        delivered = {*await self._positions.look(account.taken)}
        rest = [row for row in rows if row.id not in delivered] if delivered else rows
        sent = self._certain(rest, await self._sender.send(rest))
        if not delivered:
            return sent
        verdicts = dict(zip([row.id for row in rest], sent.verdicts, strict=True))
        return sent._replace(verdicts=[verdicts.get(row.id, ACCEPTED) for row in rows], has_answer=True)

    def _certain(self, rows: Sequence[OutboxRow], sent: Sent) -> Sent:
        """Take verdicts back on rows that may be delivered already: none of them is to become a dead letter."""
        assert self._positions is not None  # noqa: S101 - only such a lane knows doubt
        if not any(isinstance(verdict, Poison | Refused) for verdict in sent.verdicts):
            return sent
        doubts = [
            self._positions.doubt(row) if isinstance(verdict, Poison | Refused) else None
            for row, verdict in zip(rows, sent.verdicts, strict=True)
        ]
        why = next(filter(None, doubts), None)
        verdicts = [
            verdict if doubt is None else Unsent(doubt) for doubt, verdict in zip(doubts, sent.verdicts, strict=True)
        ]
        return sent._replace(verdicts=verdicts, trouble=sent.trouble or why)

    async def _settle(self, account: Account, taken: HandOver) -> Mapping[Shard, Move]:
        """Write the outcomes, and return what has moved at the destination."""
        settlements = account.to_write()
        moves = self._moves(settlements)
        account.unwritten = await taken.settle(settlements, moves)
        if self._positions is None or not (kept := account.kept()):
            return moves
        if behind := self._positions.stay_behind(moves, kept):
            await taken.settle((), behind)
        return {**moves, **behind}

    def _moves(self, settlements: Sequence[Settlement]) -> Mapping[Shard, Move]:
        """Return what moves at the destination with these outcomes."""
        if self._positions is None:
            return NO_MOVES
        return self._positions.moves([row for row, outcome in settlements if isinstance(outcome, Delivered)])

    def _count(self, account: Account) -> None:
        """Note what has become final."""
        self._found = self._found or account.has_worked
        verdicts, settlements = account.written()
        if account.has_worked:
            self._meter.handed_over(self._measured(account, verdicts, settlements))
        before = self._tally.dead
        self._tally.add(verdicts, settlements)
        if self._tally.dead > before:
            self._say_dead(account.final())
        if settlements or self._remembered.is_empty:
            # Rows that were merely taken say nothing of whether their outcomes can be written.
            self.health.recovered(self.name)

    def _measured(self, account: Account, verdicts: Sequence[Verdict], settlements: Sequence[Settlement]) -> HandedOver:
        return HandedOver(
            forwarder=self._forwarder,
            address=self._address,
            rows=self._worked_on(account),
            verdicts=verdicts,
            settlements=settlements,
            taking_seconds=account.taken_at - account.began,
            sending_seconds=account.answered_at - account.taken_at,
            seconds=time.monotonic() - account.began,
        )

    @staticmethod
    def _worked_on(account: Account) -> Sequence[OutboxRow]:
        """Return the rows of a hand-over, of one that sends nothing only those with an outcome to write."""
        if account.taken is None:
            return ()
        return account.taken.rows if account.to_send else [answer.row for answer in account.known]

    def _say_dead(self, answers: Iterable[Answer]) -> None:
        for row, outcome in (answer.settlement for answer in answers):
            if isinstance(outcome, Dead):
                self._log(
                    logging.ERROR,
                    f"{self.name}: row {row.id} in {row.queue!r}, key {row.key!r}, goes to the dead letters: "
                    f"{outcome.reason}: {outcome.exception}",
                    None,
                )

    def _note(self, taken: HandOver, sent: Sent) -> float:
        """Note which shards to visit again, and the destination's answer; return the seconds to rest."""
        if taken.has_more or sent.trouble is not None or sent.partly is not None:
            self._rounds.narrow()
        else:
            self._rounds.widen()
        if sent.are_deferred or any(not isinstance(verdict, Unsent) for verdict in sent.verdicts):
            self._rounds.fruitless(taken.vacant)
            self._rounds.fruitful()
        else:
            self._rounds.fruitless(taken.shards)
        if not sent.verdicts:
            # All their rows wait for another row, so there is nothing to send.
            self._breaker.idle(taken.shards)
            return 0.0
        if sent.has_answer:
            self._rounds.take_up(taken.shards)
        elif sent.partly is not None and sent.trouble is None and not sent.are_deferred:
            self._rounds.put_off(taken.shards, are_full=taken.has_more)
        rest = self._breaker.note(taken.shards, answered=sent.has_answer, trouble=sent.trouble, partly=sent.partly)
        if self._breaker.state is BreakerState.OPEN:
            # It is not the shards' fault: the next probe may go to any of them.
            self._rounds.finish()
        return rest

    def _settlements(self, rows: Sequence[OutboxRow], verdicts: Sequence[Verdict], elapsed: float) -> list[Settlement]:
        return [
            Settlement(row, outcome)
            for row, verdict in zip(rows, verdicts, strict=True)
            if (outcome := self._outcome(row, verdict, elapsed)) is not None
        ]

    def _outcome(self, row: OutboxRow, verdict: Verdict, elapsed: float) -> Outcome | None:
        match verdict:
            case Accepted() | Dropped():
                return DELIVERED
            case Refused(exception):
                return self._failure.holding(row, self._failure.after_failure(row, exception, elapsed=elapsed))
            case Poison(reason, exception):
                return self._failure.holding(row, self._failure.at_once(reason, exception))
            case Unsent():
                return None


def _without(row_ids: Sequence[int], asked: Sequence[int], taken: HandOver | None) -> Sequence[int]:
    """Return the rows that are still to be asked for, where some were asked for and taken."""
    if taken is None:
        # Another lane or process has the shard.
        return ()
    # What is missing is settled or with somebody else, unless bytes were the limit.
    seen = {row.id for row in taken.rows} if taken.has_more else {*asked}
    return [row_id for row_id in row_ids if row_id not in seen]


def _leaves_nothing(taken: HandOver, sent: Sent) -> bool:
    """Return whether the shards that were asked for have no more work, as far as a hand-over can know."""
    is_last = taken.is_whole and not taken.has_more
    return is_last and not any(isinstance(verdict, Unsent) for verdict in sent.verdicts)
