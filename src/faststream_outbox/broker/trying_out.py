"""What FastStream's AsyncAPI page finds where it would publish to try a broker out."""

from typing import Any

from faststream.exceptions import FeatureNotSupportedException
from typing_extensions import override

from faststream_outbox._faststream.testing import EnterType, TestBroker
from faststream_outbox.broker.broker import OutboxBroker


class NoTryingOut(TestBroker[OutboxBroker, EnterType], broker=OutboxBroker):
    """Stands where FastStream looks for our test broker: to "try it out" on the AsyncAPI page.

    Without one, ``AsgiFastStream(broker, asyncapi_path=...)`` refuses to be made. The real one must not be found:
    trying out puts the live broker into test mode for a moment, and what other requests publish then would be lost.
    """

    __test__ = False

    async def __aenter__(self) -> EnterType:
        msg = (
            "an outbox cannot be tried out: publish in a transaction of the application, or test with TestOutboxBroker"
        )
        raise FeatureNotSupportedException(msg)

    @override
    def create_publisher_fake_subscriber(self, broker: OutboxBroker, publisher: Any) -> Any:
        raise NotImplementedError

    @override
    async def _fake_connect(self, broker: OutboxBroker, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError
