"""NATS: JetStream, which acknowledges, and core NATS, which only passes on."""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast
from urllib.parse import quote

from nats import errors
from nats.aio.client import Client
from nats.js import api
from nats.js import errors as js

from faststream_outbox._engine.service import stop_tasks
from faststream_outbox._values.outcome import DEDUPLICATED, Deduplicated, Poison, Reason, Refused, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders.any_broker import destination as any_broker
from faststream_outbox.forwarders.any_broker.outlet import Answer, Outlet, invalid, outage, refused, too_large
from faststream_outbox.forwarders.kinds import Address, Wishes
from faststream_outbox.forwarders.socket_reset import reset

if TYPE_CHECKING:
    from faststream.nats import NatsBroker

ACK_SECONDS = 5.0
"""FastStream waits half a second for JetStream, which is short for hundreds of messages at once."""

MESSAGE_TOO_LARGE = 10054
STREAM_DOES_NOT_MATCH = 10060
"""JetStream's error codes: nats-server, ``server/errors.json``."""

HEADERS_OVERHEAD = len("NATS/1.0\r\n\r\n")
HEADER_OVERHEAD = len(": \r\n")

CHANGED_ON_THE_WAY = re.compile(r"^\s|\s$|[\r\n]")
"""nats-py strips header values, and makes blanks of line ends."""


def _api_error(error: js.APIError) -> Verdict:
    if error.err_code == MESSAGE_TOO_LARGE:
        return Poison(Reason.TOO_LARGE, error)
    if error.err_code == STREAM_DOES_NOT_MATCH:
        return Unsent(error)
    return Refused(error)


class NatsOutlet(Outlet):
    """A subject.

    With ``stream=``, each row waits for JetStream's acknowledgement. The stream must be there: FastStream declares it
    when the application starts the broker. ``Nats-Msg-Id`` names queue, subject and idempotency key, so JetStream drops
    repeats within the stream's duplicate window (two minutes by default) by itself. What it drops counts as
    ``deduplicated`` in the forwarder's status, and not as sent.

    Without ``stream=``, the row has left the table when the server has it, whether or not anybody listens.

    NATS headers are lines of text: a name outside of ASCII's tokens, or a value with line ends or with white space
    around it, is poison.

    Raises:
        ConfigError: There is no ``stream=``, and losses were not asked for; or the subject is no place to send to.
    """

    usual_timeout = ACK_SECONDS
    answers: ClassVar[Sequence[Answer]] = (
        (errors.MaxPayloadError, too_large),
        (errors.BadHeaderError, invalid),
        (errors.BadSubjectError, invalid),
        (js.NoStreamResponseError, outage),  # no stream listens to the subject, or JetStream is away
        (js.ServiceUnavailableError, outage),  # 503: no space, no leader, the stream is full
        (js.APIError, _api_error),
        (errors.Error, outage),  # closed, draining, reconnecting, no servers, ...
        (json.JSONDecodeError, refused),  # somebody else has answered before JetStream
    )

    def __init__(self, publisher: Any, *, allow_lossy: bool = False) -> None:
        super().__init__(publisher, allow_lossy=allow_lossy)
        self._is_acknowledged = publisher.stream is not None
        if not self._is_acknowledged and not allow_lossy:
            msg = (
                f"to: NATS forgets a message on {self.address!r} that nobody listens to; write "
                "nats.publisher(..., stream='...') for JetStream, or forwarder(..., allow_lossy=True)"
            )
            raise ConfigError(msg)
        if not self.address or re.search(r"\s|(^|\.)[*>]?($|\.)", self.address):
            msg = f"to: {self.address!r} is not a subject to publish to"
            raise ConfigError(msg)
        self._timeout = max(publisher.timeout, ACK_SECONDS)
        self.usual_timeout = self._timeout
        # What FastStream and nats-py add, and the publisher's own.
        self._its_headers = {"content-type": "", "reply_to": publisher.reply_to, **publisher.headers}
        if publisher.stream is not None:
            self._its_headers[api.Header.EXPECTED_STREAM.value] = publisher.stream.name

    @property
    def kind(self) -> str:
        return "nats"

    @property
    def address(self) -> str:
        return str(self.publisher.subject.template)

    async def publish(self, parcel: Parcel) -> Deduplicated | None:
        client = _client_of(self.broker)
        headers = {api.Header.MSG_ID.value: self._message_id(parcel)} if self._is_acknowledged else {}
        self._check(parcel, headers, client.max_payload)
        if self._is_acknowledged:
            taken = await self._caller.publish(parcel, headers=headers, timeout=self._timeout)
            return DEDUPLICATED if taken is not None and taken.duplicate else None
        await self._caller.publish(parcel)
        # Answered behind the message: the server has it.
        await client.flush(self._timeout)
        return None

    def _check(self, parcel: Parcel, more_headers: Mapping[str, str], limit: int) -> None:
        """Raise for what would not go through unchanged, or over which the server would close the connection."""
        headers = {**self._its_headers, **self._caller.headers_of(parcel), **more_headers}
        for name, value in headers.items():
            if CHANGED_ON_THE_WAY.search(value):
                msg = f"NATS cannot carry the header {name!r}: it has line ends, or white space around it"
                raise ValueError(msg)
        # nats-py looks at the payload alone, but the server counts the headers too.
        size = len(parcel.row.payload) + HEADERS_OVERHEAD
        size += sum(len(name.encode()) + len(value.encode()) + HEADER_OVERHEAD for name, value in headers.items())
        if size > limit:
            raise errors.MaxPayloadError

    def _message_id(self, parcel: Parcel) -> str:
        """Name the message among all of a stream, which may take several queues and subjects."""
        parts = (parcel.row.queue, parcel.address or self.address, parcel.row.idempotency_key)
        return "/".join(quote(part, safe="") for part in parts)

    def classify(self, error: BaseException, parcel: Parcel) -> Verdict:
        verdict = super().classify(error, parcel)
        if parcel.address is not None and isinstance(error, js.NoStreamResponseError | js.APIError):
            # That there is no such subject is then this row's trouble alone.
            return Refused(error) if isinstance(verdict, Unsent) else verdict
        return verdict

    async def stop(self, *, cut: bool) -> None:
        client = _client_of(self.broker)
        try:
            if cut:
                with contextlib.suppress(errors.Error, OSError):
                    await _cut(client)
            await super().stop(cut=cut)
        finally:
            # The client has cancelled its attempt to reconnect, but may lose that in a wait that ends just then.
            if (reconnecting := client._reconnection_task) is not None:  # noqa: SLF001
                await stop_tasks([reconnecting], 0)


async def _cut(client: Client) -> None:
    # It would send what is buffered before it closes.
    client._pending.clear()  # noqa: SLF001
    client._pending_data_size = 0  # noqa: SLF001
    writer = getattr(client._transport, "_io_writer", None)  # noqa: SLF001 - there is none before it has connected
    if writer is not None:
        reset(writer.transport)
    await client.close()


def _client_of(broker: Any) -> Client:
    return cast("NatsBroker", broker).connection


def address_of(publisher: Any, wishes: Wishes) -> Address:
    """Read a publisher of FastStream's ``NatsBroker``; see ``NatsOutlet``."""
    return any_broker.address_of(publisher, wishes, NatsOutlet)
