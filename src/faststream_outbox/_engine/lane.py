"""Carries rows from the table to a destination."""

import asyncio
import time
from collections.abc import Sequence

from faststream_outbox._engine.backoff import Backoff
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
        rounds: The places to take rows from.
        wakeup: Rings when there may be new rows.
        pacer: Decides when to look again.
        failure: Decides what becomes of refused rows.
        batch_size: The most rows of one hand-over.
        send_timeout: Seconds after which a hand-over is given up; its rows are sent again later.
        destination_health: The destination's; its lanes share it.
        health: The database's.
    """

    def __init__(
        self,
        name: str,
        *,
        store: Store,
        destination: Destination,
        rounds: Rounds,
        wakeup: Wakeup,
        pacer: Pacer,
        failure: FailurePolicy,
        batch_size: int,
        send_timeout: float,
        destination_health: Health,
        health: Health,
    ) -> None:
        super().__init__(f"outbox-lane-{name}", health)
        self._store = store
        self._destination = destination
        self._rounds = rounds
        self._wakeup = wakeup
        self._pacer = pacer
        self._failure = failure
        self._batch_size = batch_size
        self._send_timeout = send_timeout
        self._destination_health = destination_health
        self._probing = Backoff()
        self._connecting: asyncio.Timeout | None = None
        self._was_unreachable = False
        self._found = False

    def interrupt(self) -> None:
        self._wakeup.ring()
        if self._connecting is not None and not self._connecting.expired():
            # No row hangs on it: there is nothing to wait for.
            self._connecting.reschedule(0.0)

    async def run_once(self) -> None:
        if not await self._is_destination_up() or self.is_stopping:
            return
        async with asyncio.timeout(self._send_timeout + DATABASE_SECONDS):
            place, verdicts = await self._hand_over()
        # From here on the transaction is over: while the lane rests, its rows and its connection are free.
        self._found = self._found or bool(verdicts)
        await self._note(verdicts)
        if place is None:
            self._rounds.finish()
            found, self._found = self._found, False
            await self._pacer.rest(found=found)

    async def _is_destination_up(self) -> bool:
        try:
            await self._connect()
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            if not self.is_stopping:
                self._was_unreachable = True
                await self._destination_failed(error)
            return False
        if self._was_unreachable:
            # Told now, and not by the first row, which may be long in coming.
            self._was_unreachable = False
            self._destination_health.recovered()
        return True

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._send_timeout) as self._connecting:
                await self._destination.connect()
        finally:
            self._connecting = None

    async def _hand_over(self) -> tuple[Place | None, Sequence[Verdict]]:
        """Make one hand-over; no place means that none has work for us."""
        async with self._store.hand_over(self._rounds.next(), limit=self._batch_size) as hand_over:
            self.health.recovered()
            if hand_over is None:
                return None, ()
            self._rounds.visited(hand_over.place)
            began = time.monotonic()
            verdicts = await self._send(hand_over.rows)
            await hand_over.settle(self._settlements(hand_over.rows, verdicts, time.monotonic() - began))
        if any(isinstance(verdict, Accepted | Refused | Poison) for verdict in verdicts):
            self._rounds.fruitful()
        else:
            self._rounds.fruitless(hand_over.place)
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

    async def _note(self, verdicts: Sequence[Verdict]) -> None:
        """Draw from the verdicts whether the destination is up, and wait if it is not."""
        trouble = next((v.exception for v in verdicts if isinstance(v, Unsent) and v.exception is not None), None)
        # Poison says nothing: it may have been found without asking the destination.
        has_answered = any(isinstance(verdict, Accepted | Refused) for verdict in verdicts)
        if has_answered:
            self._probing.reset()
        if trouble is not None:
            await self._destination_failed(trouble)
        elif has_answered:
            self._destination_health.recovered()

    async def _destination_failed(self, error: BaseException) -> None:
        self._destination_health.failed(error)
        await self.sleep(self._probing.next())

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
