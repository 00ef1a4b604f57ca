"""A FastStream publisher as the way out for rows."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, TypeAlias

from faststream.exceptions import FastStreamException

from faststream_outbox._faststream import broker_of
from faststream_outbox._values.outcome import Deduplicated, Poison, Reason, Refused, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.any_broker.caller import PublisherCaller

Answer: TypeAlias = tuple[type[BaseException], Callable[[Any], Verdict]]

too_large = partial(Poison, Reason.TOO_LARGE)
invalid = partial(Poison, Reason.INVALID)
outage = Unsent
refused = Refused

ANSWERS: Sequence[Answer] = (
    (OSError, outage),  # among them ConnectionError and TimeoutError
    (EOFError, outage),
    (BufferError, outage),  # the client's buffer is full
    (FastStreamException, outage),  # not connected, or set up in a way that fits no message
    (TypeError, invalid),  # the message cannot be encoded
    (ValueError, invalid),
)
"""What an error of any client says; the first that fits counts.

Each other one refuses the row: that counts as an attempt and is tried again, so that an unforeseen error neither stalls
the queue for ever nor kills a row at once.
"""


class Outlet:
    """What is known of a publisher and its broker; this one of those of which nothing is known.

    Args:
        publisher: What ``broker.publisher(...)`` returned.
        allow_lossy: Whether it may be a publisher that drops messages without a listener.

    Raises:
        ConfigError: Its settings are not safe; the message says what to write instead.
    """

    usual_timeout: float = 30.0
    """Seconds after which a message without an answer has failed."""
    answers: ClassVar[Sequence[Answer]] = ()
    """What its client's errors say, before ``ANSWERS``; the first that fits counts."""

    def __init__(self, publisher: Any, *, allow_lossy: bool = False) -> None:
        self.publisher = publisher
        self.broker = broker_of(publisher)
        self._caller = PublisherCaller(publisher)

    @property
    def kind(self) -> str:
        """A word for the kind of broker."""
        return type(self.broker).__name__.removesuffix("Broker").lower()

    @property
    def address(self) -> str:
        """Where rows go, for the log."""
        names = (getattr(self.publisher, name, None) for name in ("topic", "subject", "queue", "channel"))
        return next((str(name) for name in names if name), "")

    @property
    def name(self) -> str:
        """Kind and address."""
        return f"{self.kind}:{self.address}"

    def check_timeout(self, send_timeout: float) -> None:
        """Check that the client itself gives a message up before a hand-over is given up.

        Raises:
            ConfigError: It does not; the message says what to write instead.
        """

    async def publish(self, parcel: Parcel) -> Deduplicated | None:
        """Send a row; returns when it is known that the broker has it.

        Returns:
            None, or that the broker had it before and says so.

        Raises:
            Exception: It has not, or that is not known; see ``classify``.
        """
        await self._caller.publish(parcel)
        return None

    def classify(self, error: BaseException, parcel: Parcel) -> Verdict:
        """Read what ``publish`` has raised for a row."""
        if isinstance(error, asyncio.CancelledError):
            # The client's own, when it gives up a connection.
            return Unsent(ConnectionError("the client stopped trying to send the message"))
        answers = (*self.answers, *ANSWERS)
        return next((verdict(error) for kind, verdict in answers if isinstance(error, kind)), Refused(error))

    def is_doubtful(self, error: BaseException) -> bool:
        """Return whether an error may be the fault of another row in the same batch of the client."""
        return False

    async def stop(self, *, cut: bool) -> None:
        """Stop the connected broker.

        Args:
            cut: Throw away first what its client has not sent yet.
        """
        await self.broker.stop()
