"""What brokers and routers share: declaring subscribers, publishers and forwarders."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack, override

from faststream_outbox._faststream import BrokerMiddleware, Registrator
from faststream_outbox.config import OutboxBrokerConfig
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders.forwarder import OutboxForwarder
from faststream_outbox.forwarders.options import ForwarderOptions
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
        super().__init__(**kwargs)

    @property
    def forwarders(self) -> list[OutboxForwarder]:
        """All forwarders, those of included routers among them."""
        included = [forwarder for router in self.routers for forwarder in getattr(router, "forwarders", ())]
        return [*self._forwarders, *included]

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

        Example::

            @broker.subscriber("orders", max_workers=4)
            async def handle(body: dict) -> None: ...
        """
        subscriber = create_subscriber(queues, config=self.config, **options)
        self._refuse_second_consumer(subscriber.queues)
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
        to: Any,
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
            The forwarder; it starts and stops with the broker.

        Raises:
            ConfigError: An option cannot work, or another consumer has the queue. Whether the destination's settings
                are safe is checked when the broker starts.

        Example::

            kafka = KafkaBroker("localhost:9092", acks="all")
            broker.forwarder("orders", to=kafka.publisher("orders.v1"))
        """
        forwarder = OutboxForwarder(as_queues(queues), to=to, config=self.config, **options)
        self._refuse_second_consumer(forwarder.queues)
        self._forwarders.append(forwarder)
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
        self.check_consumers()

    def check_consumers(self) -> None:
        """Refuse two consumers of one queue, which would compete for its rows.

        Raises:
            ConfigError: Names the queue.
        """
        counts = Counter(self._consumed_queues())
        for queue, count in counts.items():
            if count > 1:
                raise _second_consumer(queue)

    def _refuse_second_consumer(self, queues: Sequence[str]) -> None:
        taken = set(self._consumed_queues())
        for queue in queues:
            if queue in taken:
                raise _second_consumer(queue)

    def _consumed_queues(self) -> list[str]:
        consumers = (*self.subscribers, *self.forwarders)
        return [queue for consumer in consumers for queue in getattr(consumer, "queues", ())]


def _second_consumer(queue: str) -> ConfigError:
    return ConfigError(
        f"queues: {queue!r} has a consumer already, and a row is for one consumer; "
        "publish to one queue for each, or handle both in one place",
    )
