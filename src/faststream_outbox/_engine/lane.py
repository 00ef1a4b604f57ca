"""Carries rows from the table to a destination."""

import asyncio
import time
from collections.abc import Sequence

from faststream_outbox._engine.breaker import Breaker, BreakerState
from faststream_outbox._engine.connecting import Connecting
from faststream_outbox._engine.destination import Destination
from faststream_outbox._engine.failure import FailurePolicy
from faststream_outbox._engine.health import Health
from faststream_outbox._engine.pacer import Pacer
from faststream_outbox._engine.rounds import Rounds
from faststream_outbox._engine.service import DATABASE_SECONDS, Service, is_cancelled
from faststream_outbox._engine.wakeups import Wakeup
from faststream_outbox._store.protocol import Place, Store
from faststream_outbox._values.outcome import (
    Accepted,
    Dead,
    Delivered,
    Outcome,
    Poison,
    Refused,
    Settlement,
    Unsent,
    Verdict,
    describe,
)
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.row import OutboxRow


class Lane(Service):
    """One hand-over at a time: lock rows, send them, write the outcomes, commit.

    The rows are held by row locks of one short transaction. When the process dies, PostgreSQL gives them back at once.

    Args:
        name: The forwarder's name with the lane's number.
        store: Where rows are.
        destination: Where they go.
        breaker: Says when the destination may be used; all lanes to it share one.
        rounds: The places to take rows from.
        wakeup: Rings when there may be new rows.
        pacer: Decides when to look again.
        failure: Decides what becomes of refused rows.
        batch_size: The most rows of one hand-over.
        send_timeout: Seconds after which a hand-over is given up; its rows are sent again later.
        health: The database's.
    """

    def __init__(
        self,
        name: str,
        *,
        store: Store,
        destination: Destination,
        breaker: Breaker,
        rounds: Rounds,
        wakeup: Wakeup,
        pacer: Pacer,
        failure: FailurePolicy,
        batch_size: int,
        send_timeout: float,
        health: Health,
    ) -> None:
        super().__init__(f"outbox-lane-{name}", health)
        self._store = store
        self._destination = destination
        self._breaker = breaker
        self._connecting = Connecting(destination, send_timeout)
        self._rounds = rounds
        self._wakeup = wakeup
        self._pacer = pacer
        self._failure = failure
        self._batch_size = batch_size
        self._send_timeout = send_timeout
        self._found = False

    def interrupt(self) -> None:
        self._wakeup.ring()
        self._breaker.wake()
        self._connecting.give_up()

    async def run_once(self) -> None:
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
        await self._pacer.rest(found=found)

    async def _use_turn(self) -> float | None:
        """Make a hand-over; return the seconds to rest then, or None where there was nothing to take."""
        error = await self._connecting.attempt()
        if self.is_stopping:
            return 0.0
        if error is not None:
            return self._breaker.note(self.name, answered=False, trouble=error)
        self._breaker.connected(self.name)
        asked = self._rounds.next()
        async with asyncio.timeout(self._send_timeout + DATABASE_SECONDS):
            place, verdicts = await self._hand_over(asked)
        if place is None:
            self._breaker.idle(asked)
            return None
        self._found = self._found or bool(verdicts)
        return self._note(place, verdicts)

    async def _hand_over(self, places: Sequence[Place]) -> tuple[Place | None, Sequence[Verdict]]:
        """Make one hand-over; no place means that none has work for us."""
        async with self._store.hand_over(places, limit=self._batch_size) as hand_over:
            self.health.recovered()
            if hand_over is None:
                return None, ()
            self._rounds.visited(hand_over.place)
            began = time.monotonic()
            verdicts = await self._send(hand_over.rows)
            await hand_over.settle(self._settlements(hand_over.rows, verdicts, time.monotonic() - began))
        return hand_over.place, verdicts

    async def _send(self, rows: Sequence[OutboxRow]) -> Sequence[Verdict]:
        if not rows:
            return ()
        try:
            async with asyncio.timeout(self._send_timeout):
                verdicts = await self._destination.send([Parcel(row) for row in rows])
            if len(verdicts) != len(rows):
                msg = f"{len(verdicts)} verdicts on {len(rows)} rows"
                raise ValueError(msg)  # noqa: TRY301 - it ends like every other failure of the destination
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            # The outcome is unknown: the rows stay and are sent again with the same keys.
            return [Unsent(error)] * len(rows)
        return verdicts

    def _note(self, place: Place, verdicts: Sequence[Verdict]) -> float:
        """Draw from the verdicts whether the place is worth another visit, and whether the destination is up."""
        if any(isinstance(verdict, Accepted | Refused | Poison) for verdict in verdicts):
            self._rounds.fruitful()
        else:
            self._rounds.fruitless(place)
        if not verdicts:
            # All its rows wait for another row, so there is nothing to send.
            self._breaker.idle([place])
            return 0.0
        rest = self._breaker.note(
            place,
            # Poison says nothing: it may have been found without asking the destination.
            answered=any(isinstance(verdict, Accepted | Refused) for verdict in verdicts),
            trouble=next((v.exception for v in verdicts if isinstance(v, Unsent) and v.exception is not None), None),
        )
        if self._breaker.state is BreakerState.OPEN:
            # It is not the places' fault: the next probe may go to any of them.
            self._rounds.finish()
        return rest

    def _settlements(
        self,
        rows: Sequence[OutboxRow],
        verdicts: Sequence[Verdict],
        elapsed: float,
    ) -> list[Settlement]:
        outcomes = ((row, self._outcome(row, verdict, elapsed)) for row, verdict in zip(rows, verdicts, strict=True))
        return [Settlement(row, outcome) for row, outcome in outcomes if outcome is not None]

    def _outcome(self, row: OutboxRow, verdict: Verdict, elapsed: float) -> Outcome | None:
        match verdict:
            case Accepted():
                return Delivered()
            case Refused(exception):
                return self._failure.after_failure(row, exception, elapsed=elapsed)
            case Poison(reason, exception):
                return Dead(reason, describe(exception))
            case Unsent():
                return None
