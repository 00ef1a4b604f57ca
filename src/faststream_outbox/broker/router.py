"""FastStream's own kind of router, for applications without FastAPI."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from faststream.middlewares import AckPolicy
from typing_extensions import Unpack

from faststream_outbox._faststream import (
    EMPTY,
    ArgsContainer,
    BrokerMiddleware,
    BrokerRouter,
    CustomCallable,
    SubscriberRoute,
)
from faststream_outbox.broker.registrator import OutboxRegistrator
from faststream_outbox.broker_config import OutboxBrokerConfig
from faststream_outbox.message import Delivery
from faststream_outbox.publisher.options import PublisherOptions
from faststream_outbox.subscriber.options import SubscriberOptions

if TYPE_CHECKING:
    from fast_depends.dependencies import Dependant


class OutboxRoutePublisher(ArgsContainer):
    """A publisher to be declared by an ``OutboxRoute``; takes what ``router.publisher`` takes."""

    def __init__(self, queue: str, **options: Unpack[PublisherOptions]) -> None:
        super().__init__(queue, **options)


class OutboxRoute(SubscriberRoute):
    """A handler to be subscribed by ``OutboxRouter(handlers=...)``; takes what ``router.subscriber`` takes."""

    def __init__(
        self,
        call: Callable[..., Any],
        queues: str | Sequence[str],
        *,
        publishers: Iterable[OutboxRoutePublisher] = (),
        **options: Unpack[SubscriberOptions],
    ) -> None:
        super().__init__(call, queues, publishers=publishers, **options)


class OutboxRouter(OutboxRegistrator, BrokerRouter[Delivery, OutboxBrokerConfig]):
    """Groups subscribers, publishers and forwarders until a broker includes them.

    Args:
        prefix: Stands before the name of each queue.
        handlers: Handlers to subscribe at once.
        dependencies: FastStream dependencies to resolve for each message.
        middlewares: FastStream middlewares around consuming and publishing.
        routers: Routers to include.
        parser: Makes a message of a delivery.
        decoder: Decodes a message's body.
        include_in_schema: Whether AsyncAPI lists its endpoints.
        ack_policy: What becomes of a message whose handler raised.

    Example::

        router = OutboxRouter(prefix="shop-")

        @router.subscriber("orders")
        async def handle(body: dict) -> None: ...

        broker.include_router(router)
    """

    def __init__(
        self,
        prefix: str = "",
        handlers: Iterable[OutboxRoute] = (),
        *,
        dependencies: "Sequence[Dependant]" = (),
        middlewares: Sequence[BrokerMiddleware[Any, Any]] = (),
        routers: Iterable[OutboxRegistrator] = (),
        parser: CustomCallable | None = None,
        decoder: CustomCallable | None = None,
        include_in_schema: bool | None = None,
        ack_policy: AckPolicy = EMPTY,
    ) -> None:
        super().__init__(
            handlers=handlers,
            config=OutboxBrokerConfig(
                prefix=prefix,
                broker_dependencies=dependencies,
                broker_middlewares=middlewares,
                broker_parser=parser,
                broker_decoder=decoder,
                include_in_schema=include_in_schema,
                ack_policy=ack_policy,
            ),
            routers=routers,
        )
