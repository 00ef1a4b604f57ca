"""What all destinations with connections of their own have in common."""

from abc import ABC, abstractmethod
from collections.abc import Collection, MutableMapping, Sequence
from typing import ClassVar, Generic, Protocol, TypeGuard, TypeVar

from faststream_outbox._values.outcome import Accepted, Poison, Reason, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.deadline import Deadline
from faststream_outbox.forwarders.suspects import ConnectionBrokenError, OneOfThemError, Suspects

Verdicts = MutableMapping[int, Verdict]
"""By the row's id."""


class Client(Protocol):
    """A connection that tries each message just once."""

    @property
    def is_alive(self) -> bool:
        """Whether it can be used, as far as that shows on this side."""

    async def close(self) -> None:
        """Close it so that nothing more of what has no answer leaves this machine."""


C = TypeVar("C", bound=Client)


class ConnectedDestination(ABC, Generic[C]):
    """Sends the hand-overs of one lane, on a connection that no other has, and gives it up when an answer is missing.

    Args:
        suspects: Of this destination; its lanes share them.
        send_timeout: Seconds for one hand-over.
    """

    SERVER: ClassVar[str]
    """What it is called in an error."""

    def __init__(self, suspects: Suspects, send_timeout: float) -> None:
        self._suspects = suspects
        self._deadline = Deadline(send_timeout)
        self._client: C | None = None
        self._has_looked = False
        """Whether the server has shown since the last trouble that rows would be taken."""
        self._suspected: Collection[int] = frozenset()
        """The rows in flight when the last connection broke."""

    @abstractmethod
    async def _open(self) -> C:
        """Open a client; leave nothing open if that fails."""

    @abstractmethod
    async def _look(self, client: C) -> None:
        """Find out whether rows would be taken; raise if not."""

    def _rest(self, client: C) -> None:
        """Note that all that was sent has an answer: until the next hand-over the connection may serve others."""

    async def _has_stayed(self, client: C) -> bool:
        """Return whether the server that ended the last connection has been there all the time, as far as it shows."""
        return True

    @abstractmethod
    def _is_settled(self, client: C, error: BaseException) -> bool:
        """Return whether all that was sent has an answer after this error, so that the connection can be kept."""

    @abstractmethod
    async def _send(self, client: C, parcels: Sequence[Parcel], verdicts: Verdicts) -> None:
        """Send parcels and note verdicts as soon as they are known.

        Those in flight when a connection broke are unsent with a ``ConnectionBrokenError``, or a ``OneOfThemError``;
        those that only stood behind them are unsent without an error.
        """

    def _check_address(self, address: str) -> None:
        """Raise a ValueError that says why nothing can ever be sent there. An empty one does not get so far."""

    def _is_ready(self, client: C) -> bool:
        return self._has_looked and client.is_alive

    @property
    def is_connected(self) -> bool:
        """Whether ``connect`` has nothing to do."""
        return self._client is not None and self._is_ready(self._client)

    async def connect(self) -> None:
        """Connect so that rows can be sent, or raise the client's error."""
        if self._client is not None and not self._client.is_alive:
            # A server that has been idle or restarted closes connections; that is no trouble if it can be reached.
            await self._drop()
        if self.is_connected:
            return
        try:
            if self._client is None:
                self._client = await self._open()
            await self._look(self._client)
            await self._judge(self._client)
        except BaseException as error:
            self._suspected = frozenset()
            self._suspects.withdraw()
            await self._after_trouble(error)
            raise
        self._has_looked = True
        self._rest(self._client)

    async def _judge(self, client: C) -> None:
        """Find out what the last connection broke over: a server that is there at the first look has not crashed."""
        suspected, self._suspected = self._suspected, frozenset()
        if suspected and await self._has_stayed(client):
            self._suspects.confirm(suspected)
        elif suspected:
            self._suspects.withdraw()

    async def send(self, parcels: Sequence[Parcel]) -> Sequence[Verdict]:
        """Hand over parcels and give a verdict for each, in their order."""
        if self._client is None or not self._has_looked:
            return [Unsent(ConnectionError("not connected"))] * len(parcels)
        verdicts: dict[int, Verdict] = {}
        try:
            async with self._deadline.limit():
                await self._send_in_turn(self._client, parcels, verdicts)
        except TimeoutError:
            # What was acknowledged by now stays so.
            pass
        except BaseException as error:
            await self._after_trouble(error)
            raise
        self._note_suspects(verdicts)
        unknown = Unsent(TimeoutError(f"no answer in time; it is not known whether {self.SERVER} has the row"))
        answer = [verdicts.get(parcel.row.id, unknown) for parcel in parcels]
        for trouble in {verdict.exception for verdict in answer if _is_trouble(verdict)}:
            await self._after_trouble(trouble)
        if self._client is not None:
            self._rest(self._client)
        return answer

    async def _send_in_turn(self, client: C, parcels: Sequence[Parcel], verdicts: Verdicts) -> None:
        """Hand over the parcels without suspicion, and then each suspect alone."""
        sendable = [parcel for parcel in parcels if parcel.address is None or self._can_be_sent(parcel, verdicts)]
        together, alone, waiting = self._suspects.part(sendable)
        for parcel in waiting:
            verdicts[parcel.row.id] = Unsent()
        if together:
            await self._send(client, together, verdicts)
        if not alone:
            return
        noted = [verdicts.get(parcel.row.id, Unsent()) for parcel in together]
        held_keys = _held_keys(together, noted)
        is_over = any(_is_trouble(verdict) for verdict in noted)
        for parcel in alone:
            row_id = parcel.row.id
            if is_over or not client.is_alive or parcel.row.key in held_keys:
                verdicts[row_id] = Unsent()
            elif (verdict := self._suspects.verdict_on(row_id)) is not None:
                verdicts[row_id] = verdict
            else:
                await self._send(client, [parcel], verdicts)
                is_over = _is_trouble(verdicts[row_id])

    def _can_be_sent(self, parcel: Parcel, verdicts: Verdicts) -> bool:
        address = parcel.address or ""
        try:
            address.encode()
            self._check_address(_not_empty(address))
        except ValueError as error:
            verdicts[parcel.row.id] = Poison(Reason.INVALID, ValueError(f"the address {address!r}: {error}"))
            return False
        return True

    def _note_suspects(self, verdicts: Verdicts) -> None:
        troubled = {
            row_id: verdict.exception
            for row_id, verdict in verdicts.items()
            if isinstance(verdict, Unsent) and verdict.exception is not None
        }
        if broken := {row_id: error for row_id, error in troubled.items() if isinstance(error, ConnectionBrokenError)}:
            self._suspected = broken.keys()
            self._suspects.suspect(broken)
        if certain := {row_id: error for row_id, error in troubled.items() if isinstance(error, OneOfThemError)}:
            # No outage: the server is well, and in the next hand-over each of these rows is sent alone.
            verdicts.update(dict.fromkeys(certain, Unsent()))
            self._suspects.suspect_at_once(certain)
        self._suspects.clear(row_id for row_id, verdict in verdicts.items() if not isinstance(verdict, Unsent))

    def finish(self, grace: float) -> None:
        """End what is in flight after ``grace`` seconds at most, with the verdicts that are known by then."""
        self._deadline.finish(grace)

    async def close(self) -> None:
        """Close what ``connect`` opened."""
        self._has_looked = False
        if self._suspected:
            # Nobody will find out any more what the last connection broke over, and rows would wait for that for ever.
            self._suspected = frozenset()
            self._suspects.withdraw()
        await self._drop()

    async def _after_trouble(self, error: BaseException | None) -> None:
        """Look again before the next hand-over; start over if it is not sure that everything sent has an answer."""
        self._has_looked = False
        if self._client is not None and not (error is not None and self._is_settled(self._client, error)):
            await self._drop()

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def _not_empty(address: str) -> str:
    if not address:
        msg = "it is empty"
        raise ValueError(msg)
    return address


def _held_keys(parcels: Sequence[Parcel], verdicts: Sequence[Verdict]) -> set[str | None]:
    """Return the keys of which a row may come again; later rows of such a key have to wait for it."""
    kept = zip(parcels, verdicts, strict=True)
    return {parcel.row.key for parcel, verdict in kept if not isinstance(verdict, Accepted | Poison)} - {None}


def _is_trouble(verdict: Verdict) -> TypeGuard[Unsent]:
    """Return whether a verdict says that nothing can be sent over this connection now."""
    return isinstance(verdict, Unsent) and verdict.exception is not None and verdict.part is None
