"""How a subscriber appears in AsyncAPI."""

from faststream.specification.asyncapi.utils import resolve_payloads
from faststream.specification.schema import Message, Operation, SubscriberSpec

from faststream_outbox._faststream import BrokerConfig, SubscriberSpecification
from faststream_outbox.subscriber.config import OutboxSubscriberSpecificationConfig


class OutboxSubscriberSpecification(SubscriberSpecification[BrokerConfig, OutboxSubscriberSpecificationConfig]):
    """Describes each queue as a channel."""

    @property
    def channel_labels(self) -> list[str]:
        return [f"{self._outer_config.prefix}{queue}" for queue in self.config.queues]

    def get_schema(self) -> dict[str, SubscriberSpec]:
        queues = self.channel_labels
        payload = resolve_payloads(self.get_payloads())
        specifications = {}
        for queue in queues:
            name = self._channel_key(queue, split=len(queues) > 1)
            specifications[name] = SubscriberSpec(
                address=queue,
                description=self.description,
                operation=Operation(message=Message(title=f"{name}:Message", payload=payload), bindings=None),
                bindings=None,
            )
        return specifications
