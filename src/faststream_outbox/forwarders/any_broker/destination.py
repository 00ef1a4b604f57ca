"""A FastStream publisher as the destination of one lane."""

from collections.abc import Sequence
from typing import Any

from faststream_outbox._values.outcome import Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.any_broker.link import Link
from faststream_outbox.forwarders.any_broker.outlet import Outlet
from faststream_outbox.forwarders.any_broker.sending import RowSender
from faststream_outbox.forwarders.deadline import Deadline
from faststream_outbox.forwarders.kinds import Address, Wishes


class PublisherDestination:
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

    @property
    def is_connected(self) -> bool:
        return self._link.is_ready

    async def connect(self) -> None:
        await self._link.connect(id(self))

    async def send(self, parcels: Sequence[Parcel]) -> Sequence[Verdict]:
        verdicts: dict[int, Verdict] = {}
        sender = RowSender(self._outlet, verdicts)
        trouble: BaseException | None = None
        try:
            async with self._deadline.limit():
                await self._send_in_turn(sender, parcels)
            trouble = sender.trouble
        except TimeoutError:
            if sender.was_cut_off:
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

    async def _send_in_turn(self, sender: RowSender, parcels: Sequence[Parcel]) -> None:
        async with self._link.turns.together():
            await sender.send(parcels)
        for parcel in sender.doubtful:
            async with self._link.turns.alone():
                if sender.trouble is None:
                    await sender.send_alone(parcel)

    def finish(self, grace: float) -> None:
        self._deadline.finish(grace)

    async def close(self) -> None:
        await self._link.leave(id(self))


def address_of(publisher: Any, wishes: Wishes, outlet_class: type[Outlet] = Outlet) -> Address:
    """Read a publisher of any FastStream broker.

    Args:
        publisher: What ``broker.publisher(...)`` returned.
        wishes: The forwarder's.
        outlet_class: What is known of its kind.

    Raises:
        ConfigError: Its settings are not safe.
    """
    outlet = outlet_class(publisher, allow_lossy=wishes.allow_lossy)
    wishes.refuse_envelopes(outlet.kind)
    wishes.refuse(outlet.kind, "tombstones", "count_nacks", "exactly_once")
    return Address(outlet.name, outlet.usual_timeout, lambda seconds: PublisherDestination(outlet, seconds))
