"""A span of OpenTelemetry for each hand-over to a destination."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from faststream_outbox._values.outcome import Accepted, Poison, Refused, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.kinds import LaneDestination
from faststream_outbox.tracing import application_tracer, end_span

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext

MAX_LINKS = 128
"""What OpenTelemetry's SDKs keep by default: OTEL_SPAN_LINK_COUNT_LIMIT, "SDK environment variables"."""

SYSTEMS = {"rabbit": "rabbitmq", "confluent": "kafka"}
"""Names of the semantic conventions where they are not FastStream's, see ``messaging.system``."""

KEYS = {"kafka": "messaging.kafka.message.key"}
"""What the semantic conventions call the key of a message, where they have a name for it."""


def system_of(name: str) -> tuple[str, str]:
    """Return ``messaging.system`` and ``messaging.destination.name`` of kind and address, as in ``kafka:orders.v1``."""
    kind, _, address = name.partition(":")
    return SYSTEMS.get(kind, kind), address


class TracedDestination:
    """Tells the application's tracer of each hand-over, if there is a tracer.

    A span ``send <address>`` of the kind CLIENT, with the attributes of OpenTelemetry's semantic conventions for
    messaging, and a link for each message to the span in which it was published. It is the root of a trace of its own,
    since a hand-over carries rows of many traces; what a consumer gets is the trace of publishing, unchanged.

    Args:
        destination: Where rows are sent.
        name: Kind and address, as in ``kafka:orders.v1``.
        client: ``messaging.client.id``: which lane of which forwarder it is.
        server: Attributes of the destination's server.
    """

    def __init__(
        self,
        destination: LaneDestination,
        name: str,
        *,
        client: str | None = None,
        server: Mapping[str, str | int] | None = None,
    ) -> None:
        self._destination = destination
        self._system, self._address = system_of(name)
        self._attributes: dict[str, str | int] = {
            "messaging.system": self._system,
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": self._address,
            **({} if client is None else {"messaging.client.id": client}),
            **(server or {}),
        }

    @property
    def is_connected(self) -> bool:
        return self._destination.is_connected

    async def connect(self) -> None:
        await self._destination.connect()

    async def send(self, parcels: Sequence[Parcel]) -> Sequence[Verdict]:
        span = self._begin(parcels)
        if span is None:
            return await self._destination.send(parcels)
        try:
            verdicts = await self._destination.send(parcels)
        except BaseException as error:
            end_span(span, problem=f"none of {len(parcels)} is known to be accepted", error=error)
            raise
        accepted = sum(isinstance(verdict, Accepted) for verdict in verdicts)
        problem = "" if accepted == len(parcels) else f"{len(parcels) - accepted} of {len(parcels)} not accepted"
        end_span(span, problem=problem, error=_first_error(verdicts))
        return verdicts

    def finish(self, grace: float) -> None:
        self._destination.finish(grace)

    async def close(self) -> None:
        await self._destination.close()

    def _begin(self, parcels: Sequence[Parcel]) -> "Span | None":
        try:
            return self._start_span(parcels)
        except Exception:  # noqa: BLE001 - of the application's sampler or span processor; rows are worth more
            return None

    def _start_span(self, parcels: Sequence[Parcel]) -> "Span | None":
        tracer = application_tracer()
        if tracer is None:
            return None
        from opentelemetry.context import Context  # noqa: PLC0415 - only who traces has it
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        span = tracer.start_span(
            f"send {self._address}",
            # Whatever was current where the broker was started has nothing to do with these rows.
            context=Context(),
            kind=SpanKind.CLIENT,
            attributes={**self._attributes, "messaging.batch.message_count": len(parcels)},
        )
        # It is not made the current one: an instrumented client would write its own trace into what is sent.
        if span.is_recording():
            # A propagator of the application may fail at a header; the span goes on without the links that follow.
            with suppress(Exception):
                for publishing, attributes in _links(parcels, KEYS.get(self._system, "outbox.message.key")):
                    span.add_link(publishing, attributes)
        return span


def _links(parcels: Sequence[Parcel], key_name: str) -> "Iterator[tuple[SpanContext, Mapping[str, Any]]]":
    """Yield the span in which each message was published, in the form of the application's propagators, and its names.

    A message without a trace has a link too, with an empty span, for the sake of its id.
    """
    from opentelemetry import propagate, trace  # noqa: PLC0415
    from opentelemetry.context import Context  # noqa: PLC0415

    fields = propagate.get_global_textmap().fields
    found: dict[tuple[tuple[str, str], ...], SpanContext] = {}
    for parcel in parcels[:MAX_LINKS]:
        row = parcel.row
        # The rows of one request share their headers; to read them once for all is the cheaper part.
        carrier = tuple((name, row.headers[name]) for name in fields if name in row.headers)
        publishing = found.get(carrier)
        if publishing is None:
            publishing = trace.get_current_span(propagate.extract(dict(carrier), Context())).get_span_context()
            found[carrier] = publishing
        names = {"messaging.message.id": row.idempotency_key}
        yield publishing, names if row.key is None else {**names, key_name: row.key}


def _first_error(verdicts: Sequence[Verdict]) -> BaseException | None:
    failures = (verdict.exception for verdict in verdicts if isinstance(verdict, Refused | Poison | Unsent))
    return next((exception for exception in failures if exception is not None), None)
