"""A FastStream publisher as the destination of one lane."""

from collections.abc import Sequence

from faststream_outbox._values.outcome import Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.deadline import Deadline
from faststream_outbox.forwarders.general.link import Link
from faststream_outbox.forwarders.general.outlet import Outlet
from faststream_outbox.forwarders.general.sending import Sending


class GeneralDestination:
    """Sends the hand-overs of one lane on the connection of the publisher's broker, which other lanes use too.

    Args:
        outlet: The publisher, and what is known of its kind.
        send_timeout: Seconds for one hand-over.

    Raises:
        ConfigError: The client itself would go on for longer.
    """

    def __init__(self, outlet: Outlet, send_timeout: float) -> None:
        outlet.check_timeout(send_timeout)
        self._outlet = outlet
        self._link = Link.to(outlet)
        self._deadline = Deadline(send_timeout)

    async def connect(self) -> None:
        await self._link.connect(id(self))

    async def send(self, parcels: Sequence[Parcel]) -> Sequence[Verdict]:
        verdicts: dict[int, Verdict] = {}
        sending = Sending(self._outlet, verdicts)
        trouble: BaseException | None = None
        try:
            async with self._deadline.hand_over():
                await self._hand_over(sending, parcels)
            trouble = sending.trouble
        except TimeoutError:
            if sending.was_cut_off:
                trouble = TimeoutError(f"no answer in time; it is not known whether {self._outlet.kind} has the row")
        except BaseException:
            await self._link.cut()
            raise
        if isinstance(trouble, TimeoutError):
            await self._link.cut()
        elif trouble is not None:
            self._link.doubt()
        waiting = Unsent(trouble)
        return [verdicts.get(parcel.row.id, waiting) for parcel in parcels]

    async def _hand_over(self, sending: Sending, parcels: Sequence[Parcel]) -> None:
        async with self._link.turns.together():
            await sending.send(parcels)
        for parcel in sending.doubtful:
            async with self._link.turns.alone():
                if sending.trouble is None:
                    await sending.send_alone(parcel)

    def finish(self, grace: float) -> None:
        self._deadline.finish(grace)

    async def close(self) -> None:
        await self._link.leave(id(self))
