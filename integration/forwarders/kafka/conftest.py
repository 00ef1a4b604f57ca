import logging

import pytest
from faststream.kafka import KafkaBroker

from integration.destinations.kafka import KafkaBox
from integration.faults.proxy import TcpProxy
from integration.forwarders.conftest import MakeBroker
from integration.servers.kafka import KafkaServer

__all__ = ("MakeBroker",)


@pytest.fixture
def kafka(kafka_server: KafkaServer) -> KafkaBroker:
    """The destination's broker; nobody connects it."""
    return KafkaBroker(kafka_server.bootstrap, acks="all", logger=None)


@pytest.fixture
def proxied_kafka(kafka_proxy: TcpProxy) -> KafkaBroker:
    """The same behind the proxy."""
    return KafkaBroker(kafka_proxy.address, acks="all", logger=None)


@pytest.fixture
def topic(kafka_server: KafkaServer, kafka_topic: str) -> KafkaBox:
    return KafkaBox(kafka_server, kafka_topic)


@pytest.fixture
def aiokafka_log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What aiokafka says from WARNING on."""
    caplog.set_level(logging.WARNING, "aiokafka")
    return caplog
