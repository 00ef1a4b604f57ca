"""What is refused at start, and what errors of MQTT mean for a row."""

from types import SimpleNamespace
from typing import Any

import pytest

zmqtt = pytest.importorskip("zmqtt")

from faststream.mqtt import MQTTBroker  # noqa: E402

from faststream_outbox._values.outcome import Poison, Refused, Unsent  # noqa: E402
from faststream_outbox.exceptions import ConfigError  # noqa: E402
from faststream_outbox.forwarders.any_broker.mqtt import PACKET_OVERHEAD, MqttOutlet, PacketTooLargeError  # noqa: E402

from .rows import outlet_of, parcel  # noqa: E402


def outlet(qos: Any = zmqtt.QoS.AT_LEAST_ONCE, *, allow_lossy: bool = False, **options: Any) -> MqttOutlet:
    found = outlet_of(MQTTBroker(**options).publisher("orders/created", qos=qos), allow_lossy=allow_lossy)
    assert isinstance(found, MqttOutlet)
    return found


def rejected(code: int) -> Exception:
    return zmqtt.MQTTPublishError(code, None, None)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PacketTooLargeError(), "too_large"),
        (rejected(0x80), Refused),
        (rejected(0x87), Unsent),
        (rejected(0x90), Unsent),
        (rejected(0x97), Unsent),
        (rejected(0x99), "invalid"),
        (zmqtt.MQTTInvalidTopicError(), "invalid"),
        (zmqtt.MQTTDisconnectedError(), Unsent),
        (zmqtt.MQTTTimeoutError(), Unsent),
        (RuntimeError("no packet id"), Unsent),
    ],
    ids=repr,
)
def test_what_errors_mean(error: Exception, expected: type | str) -> None:
    verdict = outlet().classify(error, parcel())
    assert verdict == (Poison(expected, error) if isinstance(expected, str) else expected(error))


def test_an_address_of_the_rows_own_is_that_rows_trouble_alone() -> None:
    error = rejected(0x87)
    assert outlet().classify(error, parcel(address="elsewhere")) == Refused(error)


def test_qos_0_must_be_asked_for() -> None:
    with pytest.raises(ConfigError, match="AT_LEAST_ONCE"):
        outlet(zmqtt.QoS.AT_MOST_ONCE)
    assert outlet(zmqtt.QoS.AT_MOST_ONCE, allow_lossy=True).name == "mqtt:orders/created"


def test_mqtt_3_has_no_headers() -> None:
    with pytest.raises(ConfigError, match=r"version=.5\.0."):
        outlet(version="3.1.1")


@pytest.mark.parametrize("texts", [{"headers": {"x": "\t"}}, {"topic": "orders\x7f"}])
def test_texts_of_the_publisher_that_nothing_can_carry_are_refused_at_start(texts: dict[str, Any]) -> None:
    options = {"topic": "orders", "qos": zmqtt.QoS.AT_LEAST_ONCE, **texts}
    with pytest.raises(ConfigError, match="control characters"):
        outlet_of(MQTTBroker().publisher(**options), allow_lossy=False)


def test_each_header_counts_for_the_servers_limit_with_what_encloses_it() -> None:
    sender = outlet()
    sender.broker = SimpleNamespace(
        connection_info=SimpleNamespace(properties=SimpleNamespace(maximum_packet_size=1000))
    )
    sender._check_size(1000 - PACKET_OVERHEAD, 0)
    # MQTT 5.0, section 3.3.2.3.7: an identifier of one byte, and two lengths of two.
    sender._check_size(1000 - PACKET_OVERHEAD - 5 * 10, 10)
    with pytest.raises(PacketTooLargeError):
        sender._check_size(1000 - PACKET_OVERHEAD - 5 * 10 + 1, 10)
