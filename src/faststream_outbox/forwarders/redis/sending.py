"""The rows of one hand-over: a transaction, its answer, the next transaction."""

from collections.abc import MutableMapping, Sequence
from typing import Any, NamedTuple, Protocol

from faststream_outbox._values.outcome import ACCEPTED, Poison, Reason, Refused, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.forwarders.redis.envelope import encode
from faststream_outbox.forwarders.redis.settings import RedisSettings
from faststream_outbox.forwarders.redis.verdicts import classify

TRANSACTION_BYTES = 1024 * 1024
"""A transaction is closed before it grows beyond that. Redis holds it in its memory until it is complete, and then does
nothing else until it is executed; more bytes in one round trip make nothing faster."""


class Transacting(Protocol):
    """What sending needs of a client."""

    max_message_bytes: int

    async def transact(self, commands: Sequence[Sequence[str | int | bytes]]) -> list[Any]:
        """Execute commands, all or none; see ``RedisClient``."""


class _Packed(NamedTuple):
    """A row with the message that it becomes."""

    row: OutboxRow
    address: str | None
    """Another than the publisher's."""
    message: bytes

    def classify(self, error: BaseException) -> Verdict:
        return classify(error, elsewhere=self.address is not None)


class Sending:
    """One transaction in flight, and nothing behind it until it is answered: so the order of each key is kept.

    Args:
        client: Executes transactions.
        settings: How messages are made, and where they go.
        verdicts: Takes a verdict for each row, under the row's id, as soon as it is known.
    """

    def __init__(self, client: Transacting, settings: RedisSettings, verdicts: MutableMapping[int, Verdict]) -> None:
        self._client = client
        self._settings = settings
        self._verdicts = verdicts
        self._held_keys: set[str] = set()

    async def send(self, parcels: Sequence[Parcel]) -> None:
        """Send parcels until all have a verdict; what stands behind an outage stays unsent."""
        runs = [await self._pack(parcels)]
        while runs:
            run = runs.pop()
            members = self._take(run)
            if run:
                runs.append(run)
            if not members:
                continue
            try:
                answers = await self._client.transact([self._command(each) for each in members])
            except Exception as error:  # noqa: BLE001 - each becomes a verdict
                if len(members) > 1 and not all(isinstance(each.classify(error), Unsent) for each in members):
                    # Redis refuses a transaction for any of its commands: halving finds the guilty ones.
                    middle = len(members) // 2
                    runs += [members[middle:], members[:middle]]
                    continue
                answers = [error] * len(members)
            if self._note_answers(members, answers):
                for packed in (packed for run in runs for packed in run):
                    self._note(packed.row, Unsent())
                return

    async def _pack(self, parcels: Sequence[Parcel]) -> list[_Packed]:
        packed: list[_Packed] = []
        for row, address in parcels:
            elsewhere = None if address == self._settings.address else address
            try:
                message = await encode(row, self._settings.headers, self._settings.message_format)
            except Exception as error:  # noqa: BLE001 - the user's format
                self._note(row, Poison(Reason.INVALID, error))
                continue
            if len(message) > self._client.max_message_bytes:
                self._note(row, _over_limit(len(message), self._client.max_message_bytes))
                continue
            packed.append(_Packed(row, elsewhere, message))
        return packed

    def _command(self, packed: _Packed) -> Sequence[str | int | bytes]:
        return (*self._settings.command_to(packed.address), packed.message)

    def _take(self, run: list[_Packed]) -> list[_Packed]:
        """Take messages from the front of a run for one transaction, until it is full."""
        members: list[_Packed] = []
        taken = size = 0
        for packed in run:
            if packed.row.key is not None and packed.row.key in self._held_keys:
                self._note(packed.row, Unsent())
            else:
                size += len(packed.message)
                # The first is taken whatever its size.
                if members and size > TRANSACTION_BYTES:
                    break
                members.append(packed)
            taken += 1
        del run[:taken]
        return members

    def _note_answers(self, members: Sequence[_Packed], answers: Sequence[Any]) -> bool:
        """Note what each answer means; tell whether one of them says that nothing can be sent now."""
        is_over = False
        for packed, answer in zip(members, answers, strict=True):
            verdict = packed.classify(answer) if isinstance(answer, Exception) else ACCEPTED
            self._note(packed.row, verdict)
            is_over = is_over or isinstance(verdict, Unsent)
        return is_over

    def _note(self, row: OutboxRow, verdict: Verdict) -> None:
        if isinstance(verdict, Refused) and row.key is not None:
            # Of each key, the later ones only wait behind the first.
            verdict = Unsent() if row.key in self._held_keys else verdict
            self._held_keys.add(row.key)
        self._verdicts[row.id] = verdict


def _over_limit(size: int, limit: int) -> Poison:
    problem = f"the message has {size} bytes, the server's proto-max-bulk-len allows {limit}"
    return Poison(Reason.TOO_LARGE, ValueError(problem))
