"""What brokers and routers share: declaring subscribers, publishers and forwarders."""

from collections.abc import Iterable, Sequence
from typing import Any

from typing_extensions import Unpack, override

from faststream_outbox._faststream import BrokerMiddleware, PublisherUsecase, Registrator
from faststream_outbox.broker.consumers import Copies, refuse_competition, taken_queues
from faststream_outbox.broker_config import OutboxBrokerConfig
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders.forwarder import OutboxForwarder
from faststream_outbox.forwarders.options import ForwarderOptions
from faststream_outbox.forwarders.specification import ForwarderEntry
from faststream_outbox.message import Delivery
from faststream_outbox.publisher.factory import create_publisher
from faststream_outbox.publisher.options import PublisherOptions
from faststream_outbox.publisher.usecase import OutboxPublisher
from faststream_outbox.subscriber.factory import as_queues, create_subscriber
from faststream_outbox.subscriber.options import SubscriberOptions
from faststream_outbox.subscriber.usecase import OutboxSubscriber


class OutboxRegistrator(Registrator[Delivery, OutboxBrokerConfig]):
    """Declares subscribers, publishers and forwarders; see ``OutboxBroker`` and ``OutboxRouter``."""

    def __init__(self, **kwargs: Any) -> None:
        self._forwarders: list[OutboxForwarder] = []
        self._copies = Copies(lambda: self.forwarders)
        super().__init__(**kwargs)

    @property
    def forwarders(self) -> list[OutboxForwarder]:
        """All forwarders, those of included routers among them."""
        included = [forwarder for router in self.routers for forwarder in getattr(router, "forwarders", ())]
        return [*self._forwarders, *included]

    @property
    def consumers(self) -> list[OutboxSubscriber | OutboxForwarder]:
        """Who takes rows: subscribers that have a handler, and forwarders; nobody where the broker only publishes."""
        if self.config.publish_only:
            return []
        return [
            *(each for each in self.subscribers if isinstance(each, OutboxSubscriber) and each.calls),
            *self.forwarders,
        ]

    @property
    @override
    def publishers(self) -> list[Any]:
        """All publishers; forwarders stand among them with what AsyncAPI shows of them."""
        entries = [
            ForwarderEntry(forwarder) for forwarder in self._forwarders if isinstance(forwarder.to, PublisherUsecase)
        ]
        return [*super().publishers, *entries]

    def copies_of(self, queue: str) -> Sequence[str]:
        """Name the queues in which forwarders with ``tee=True`` get their copies of what is published to a queue.

        Raises:
            ConfigError: Two of them have one name, or the name of one cannot be known yet.
        """
        return self._copies.of(queue)

    @override
    def subscriber(  # type: ignore[override]  # FastStream's registrators all narrow it
        self,
        queues: str | Sequence[str],
        /,
        **options: Unpack[SubscriberOptions],
    ) -> OutboxSubscriber:
        """Subscribe a handler of this process to one or more queues.

        Args:
            queues: A queue's name, or several; at most 255 bytes each.
            **options: See ``SubscriberOptions``.

        Returns:
            The subscriber; call it with the handler, or use it as a decorator.

        Raises:
            ConfigError: An option cannot work, or another consumer has the queue.
            TypeError: There is no such option.

        After the broker's start, it begins as soon as it has a handler; where that is declared outside of the event
        loop that the broker runs in, ``ConfigError`` says so.

        Example::

            @broker.subscriber("orders", max_workers=4)
            async def handle(body: dict) -> None: ...
        """
        subscriber = create_subscriber(queues, config=self.config, **options)
        self._refuse_competition_with(subscriber)
        super().subscriber(subscriber, persistent=options.get("persistent", True))
        return subscriber.add_call(
            parser_=options.get("parser") or self._parser,
            decoder_=options.get("decoder") or self._decoder,
            dependencies_=options.get("dependencies", ()),
            codec_=options.get("codec"),
        )

    @override
    def publisher(  # type: ignore[override]  # FastStream's registrators all narrow it
        self,
        queue: str,
        /,
        **options: Unpack[PublisherOptions],
    ) -> OutboxPublisher:
        """Declare a publisher for a queue.

        Args:
            queue: The queue's name.
            **options: See ``PublisherOptions``.

        Raises:
            ConfigError: No row could have that queue.
            TypeError: There is no such option.

        Example::

            orders = broker.publisher("orders")
            await orders.publish({"id": 1}, session=session)
        """
        if not isinstance(queue, str):
            msg = f"queue: must be a str, got {type(queue).__name__}"
            raise ConfigError(msg)
        publisher = create_publisher(as_queues(queue)[0], config=self.config, **options)
        super().publisher(publisher)
        return publisher

    def forwarder(
        self,
        queues: str | Sequence[str],
        *,
        to: PublisherUsecase,
        **options: Unpack[ForwarderOptions],
    ) -> OutboxForwarder:
        """Carry the messages of one or more queues on to another broker.

        The order of each key is kept, with any number of processes. A message leaves the table when the destination has
        acknowledged it.

        Args:
            queues: A queue's name, or several.
            to: A FastStream publisher of the destination's broker, as in ``kafka.publisher("orders.v1")``.
            **options: See ``ForwarderOptions``.

        Returns:
            The forwarder; it starts and stops with the broker, and at once where that has started.

        Raises:
            ConfigError: An option cannot work, or another consumer has the queue and ``tee=True`` is not given. Whether
                the destination's settings are safe is checked when the broker starts.

        Example::

            kafka = KafkaBroker("localhost:9092", acks="all")
            broker.forwarder("orders", to=kafka.publisher("orders.v1"))
            broker.forwarder("orders", to=redis.publisher(stream="orders"), tee=True)  # its own copy of each message
        """
        forwarder = OutboxForwarder(as_queues(queues), to=to, config=self.config, **options)
        self._refuse_competition_with(forwarder)
        self._forwarders.append(forwarder)
        try:
            self._start_late(forwarder)
        except BaseException:
            # Else messages would be copied for it, and nobody would take the copies.
            self._forwarders.remove(forwarder)
            raise
        return forwarder

    @override
    def include_router(
        self,
        router: "OutboxRegistrator",  # type: ignore[override]  # only a router of the same broker has anything to include
        *,
        prefix: str = "",
        dependencies: Sequence[Any] = (),
        middlewares: Sequence[BrokerMiddleware[Any, Any]] = (),
        include_in_schema: bool | None = None,
    ) -> None:
        """Take in all that a router has declared, under a prefix."""
        if not isinstance(router, OutboxRegistrator):
            msg = f"router must be an OutboxRouter of faststream_outbox, got {type(router).__name__}"
            raise TypeError(msg)
        super().include_router(
            router,
            prefix=prefix,
            dependencies=dependencies,
            middlewares=middlewares,
            include_in_schema=include_in_schema,
        )
        self.check_consumers(is_final=False)
        for consumer in router.consumers:
            self._start_late(consumer)

    def _start_late(self, consumer: OutboxSubscriber | OutboxForwarder) -> None:
        if isinstance(consumer, OutboxSubscriber):
            consumer.start_late()
        elif self.config.is_open:
            self.config.refuse_other_loops(f"forwarder of {', '.join(consumer.queues)}")
            consumer.start()

    def check_consumers(self, *, is_final: bool = True) -> None:
        """Refuse two consumers of one queue, which would compete for its rows.

        Args:
            is_final: False: routers have still to be included, and with them the names of forwarders may be missing.

        Raises:
            ConfigError: Names the queue.
        """
        self._refuse_where_nobody_consumes((*self.subscribers, *self.forwarders))
        refuse_competition(taken_queues((*self.subscribers, *self.forwarders), is_final=is_final))

    def _refuse_competition_with(self, consumer: OutboxSubscriber | OutboxForwarder) -> None:
        self._refuse_where_nobody_consumes([consumer])
        # What comes late is seen by no start, which compares all that the broker has.
        everything = self.config.extra_context["broker"] if self.config.is_open else self
        consumers = (*everything.subscribers, *everything.forwarders, consumer)
        refuse_competition(taken_queues(consumers, is_final=False))

    def _refuse_where_nobody_consumes(self, consumers: Iterable[Any]) -> None:
        if not self.config.publish_only:
            return
        for consumer in consumers:
            if not isinstance(consumer, OutboxForwarder):
                kind = "subscriber"
            elif not consumer.tee:
                kind = "forwarder"
            else:
                # Publishing has to know of it, to write its copies.
                continue
            msg = (
                f"{kind} of {', '.join(consumer.queues)}: this broker only publishes (publish_only=True); declare it "
                "on the broker of a process that consumes"
            )
            raise ConfigError(msg)
