"""A Kafka topic, sent to through Confluent's client."""

from collections.abc import Callable
from typing import Any, ClassVar

from faststream.confluent import KafkaBroker

from .kafka import KafkaBox
from .refusing import refusing_middleware


class ConfluentBox(KafkaBox):
    kind = "confluent"
    shares_connections = True
    # To librdkafka a topic that is not there may be one that it has not heard of yet.
    can_be_shut = False
    adds_headers = frozenset({"content-type"})
    impatient: ClassVar[dict[str, Any]] = {"config": {"message.timeout.ms": 900}}
    patient: ClassVar[dict[str, Any]] = {"config": {"message.timeout.ms": 55_000}}

    @classmethod
    def publisher_at(cls, url: str, name: str, **options: Any) -> Any:
        return KafkaBroker(url, **{"config": {"message.timeout.ms": 15_000}, "logger": None} | options).publisher(name)

    def options_that_refuse(self, key: str, times: int) -> dict[str, Any]:
        return refusing_middleware(key, times)

    def subscribe(self, broker: KafkaBroker, handler: Callable[..., Any]) -> None:
        broker.subscriber(self.name, auto_offset_reset="earliest", group_id=self.name)(handler)
