"""The rows of one hand-over: a transaction, its answer, the next transaction."""

from collections.abc import MutableMapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from faststream_outbox._values.outcome import ACCEPTED, Poison, Reason, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.forwarders.batches import Answer, BatchSender
from faststream_outbox.forwarders.redis.encoding import encode, fields_of
from faststream_outbox.forwarders.redis.packing import Command
from faststream_outbox.forwarders.redis.settings import RedisSettings
from faststream_outbox.forwarders.redis.verdicts import classify

TRANSACTION_BYTES = 1024 * 1024
"""A transaction is closed before it grows beyond that. Redis holds it in its memory until it is complete, and then does
nothing else until it is executed; more bytes in one round trip make nothing faster."""


class Transactor(Protocol):
    """What sending needs of a client."""

    max_message_bytes: int

    async def transact(self, commands: Sequence[Command]) -> list[Any]:
        """Execute commands, all or none; see ``RedisClient``."""


class Packed(NamedTuple):
    """A row with the message that it becomes."""

    row: OutboxRow
    address: str | None
    """Another than the publisher's."""
    message: bytes
    fields: Sequence[bytes] = ()
    """Beside the message, where it is a field of an entry."""

    @property
    def size(self) -> int:
        return len(self.message) + sum(map(len, self.fields))

    def classify(self, error: BaseException) -> Verdict:
        return classify(error, elsewhere=self.address is not None)


class TransactionSender(BatchSender[Packed, Sequence[Command]]):
    """Sends rows a transaction at a time.

    Args:
        client: Executes transactions.
        settings: How messages are made, and where they go.
        verdicts: See ``BatchSender``.
    """

    most_fields: ClassVar[int | None] = None
    """Names and values of a plain entry's headers, at most; None: what Redis takes."""

    def __init__(self, client: Transactor, settings: RedisSettings, verdicts: MutableMapping[int, Verdict]) -> None:
        super().__init__(verdicts)
        self._client = client
        self._settings = settings

    async def send_parcels(self, parcels: Sequence[Parcel]) -> None:
        """Send parcels until all have a verdict; what stands behind an outage stays unsent."""
        await self.send(await self._encoded(parcels))

    def _rows_of(self, messages: Sequence[Packed]) -> Sequence[OutboxRow]:
        return [message.row for message in messages]

    async def _exchange(self, batch: Sequence[Command], members: Sequence[Packed]) -> Answer:
        try:
            answers = await self._client.transact(batch)
        except Exception as error:  # noqa: BLE001 - each becomes a verdict
            verdicts = [each.classify(error) for each in members]
            # Redis refuses a transaction for any of its commands.
            is_for_one = any(not isinstance(verdict, Unsent) for verdict in verdicts)
            return Answer(verdicts, is_for_one, _behind(verdicts))
        verdicts = [
            packed.classify(answer) if isinstance(answer, Exception) else ACCEPTED
            for packed, answer in zip(members, answers, strict=True)
        ]
        return Answer(verdicts, behind=_behind(verdicts))

    async def _encoded(self, parcels: Sequence[Parcel]) -> list[Packed]:
        packed: list[Packed] = []
        for row, address in parcels:
            elsewhere = None if address == self._settings.address else address
            try:
                packed_row = await self._encode(row, elsewhere)
            except Exception as error:  # noqa: BLE001 - the user's format
                self._note([row], [Poison(Reason.INVALID, error)])
                continue
            size = len(packed_row.message)
            if size > self._client.max_message_bytes:
                self._note([row], [_over_limit(size, self._client.max_message_bytes)])
                continue
            packed.append(packed_row)
        return packed

    async def _encode(self, row: OutboxRow, address: str | None) -> Packed:
        headers, message_format = self._settings.headers, self._settings.message_format
        if message_format is None:
            fields = fields_of(row, headers)
            if self.most_fields is not None and len(fields) > self.most_fields:
                msg = f"{len(fields) // 2} headers: with exactly_once=True, at most {self.most_fields // 2}"
                raise ValueError(msg)
            return Packed(row, address, row.payload, fields)
        return Packed(row, address, await encode(row, headers, message_format))

    def _pack(self, run: list[Packed]) -> tuple[list[Packed], Sequence[Command]]:
        members = self._take(run)
        return members, [(*self._settings.command_to(each.address, each.fields), each.message) for each in members]

    def _take(self, run: list[Packed]) -> list[Packed]:
        """Take so many messages from the front of a run as one transaction should have."""
        members: list[Packed] = []
        taken = size = 0
        for packed in run:
            if not self._is_held(packed.row):
                size += packed.size
                # The first is taken whatever its size.
                if members and size > TRANSACTION_BYTES:
                    break
                members.append(packed)
            taken += 1
        del run[:taken]
        return members


def _behind(verdicts: Sequence[Verdict]) -> Unsent | None:
    """Return what becomes of what stands behind: nothing more can be sent once a row was not."""
    return Unsent() if Unsent in map(type, verdicts) else None


def _over_limit(size: int, limit: int) -> Poison:
    problem = f"the message has {size} bytes, the server's proto-max-bulk-len allows {limit}"
    return Poison(Reason.TOO_LARGE, ValueError(problem))
