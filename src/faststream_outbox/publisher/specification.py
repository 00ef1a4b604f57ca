"""How a publisher appears in AsyncAPI."""

from faststream.specification.asyncapi.utils import resolve_payloads
from faststream.specification.schema import Message, Operation, PublisherSpec

from faststream_outbox._faststream import BrokerConfig, PublisherSpecification
from faststream_outbox.publisher.config import OutboxPublisherSpecificationConfig


class OutboxPublisherSpecification(PublisherSpecification[BrokerConfig, OutboxPublisherSpecificationConfig]):
    """Describes the queue as a channel."""

    @property
    def queue(self) -> str:
        return f"{self._outer_config.prefix}{self.config.queue}"

    @property
    def name(self) -> str:
        return self.config.title_ or f"{self.queue}:Publisher"

    def get_schema(self) -> dict[str, PublisherSpec]:
        payload = resolve_payloads(self.get_payloads(), "Publisher")
        return {
            self.name: PublisherSpec(
                address=self.queue,
                description=self.config.description_,
                operation=Operation(message=Message(title=f"{self.name}:Message", payload=payload), bindings=None),
                bindings=None,
            ),
        }
