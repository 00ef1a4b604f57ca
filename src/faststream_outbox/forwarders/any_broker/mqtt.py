"""MQTT 5."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import zmqtt

from faststream_outbox._faststream import connection_options
from faststream_outbox._values.outcome import Poison, Reason, Refused, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.wire import CORRELATION_ID
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders.any_broker import destination as any_broker
from faststream_outbox.forwarders.any_broker.outlet import Answer, Outlet, invalid, outage, too_large
from faststream_outbox.forwarders.kinds import Address, Wishes

if TYPE_CHECKING:
    from faststream.mqtt import MQTTBroker

AT_MOST_ONCE = 0

NOT_AUTHORIZED = 0x87
TOPIC_NAME_INVALID = 0x90
QUOTA_EXCEEDED = 0x97
PAYLOAD_FORMAT_INVALID = 0x99
"""MQTT 5.0, section 3.4.2.1, "PUBACK Reason Code"."""


USER_PROPERTY_OVERHEAD = 5
"""Bytes of its identifier and of two lengths."""
PACKET_OVERHEAD = 64
"""More than the bytes of the fixed header, of the packet's identifier, and of other properties' names and lengths."""


NOT_IN_TEXTS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000))
    + "]"
)
"""Control characters, surrogates, and what is no character. By MQTT 5.0, section 1.5.4, "UTF-8 Encoded String", a text
must not or should not have them, and who receives one may close the connection."""


class PacketTooLargeError(ValueError):
    """The server would close the connection over it."""


def _publish_error(error: zmqtt.MQTTPublishError) -> Verdict:
    if error.reason_code == PAYLOAD_FORMAT_INVALID:
        return Poison(Reason.INVALID, error)
    if error.reason_code in {NOT_AUTHORIZED, TOPIC_NAME_INVALID, QUOTA_EXCEEDED}:
        return Unsent(error)
    return Refused(error)


class MqttOutlet(Outlet):
    """A topic. Each row waits for the broker's PUBACK or PUBCOMP.

    The broker then passes it on to the sessions that have subscribed, connected or not. What no session wants, it
    drops: that is MQTT's nature, and nobody is told. Headers are user properties, and so is the content type. A row is
    poison if one of them, or its address, has a control character, or what is no character.

    Raises:
        ConfigError: The publisher has QoS 0 and losses were not asked for, or its broker speaks MQTT 3.1.1, or one of
            the publisher's own texts cannot be sent.
    """

    answers: ClassVar[Sequence[Answer]] = (
        (PacketTooLargeError, too_large),
        (zmqtt.MQTTPublishError, _publish_error),
        (zmqtt.MQTTInvalidTopicError, invalid),
        (zmqtt.MQTTError, outage),  # disconnected, no answer, more than this server offers
        (RuntimeError, outage),  # no packet identifier is free
    )

    def __init__(self, publisher: Any, *, allow_lossy: bool = False) -> None:
        super().__init__(publisher, allow_lossy=allow_lossy)
        if connection_options(self.broker)["version"] == "3.1.1":
            msg = "to: MQTT 3.1.1 has no headers for a row's identity; write MQTTBroker(..., version='5.0')"
            raise ConfigError(msg)
        if publisher.qos == AT_MOST_ONCE and not allow_lossy:
            msg = (
                "to: with QoS 0, the default, nobody knows whether a message arrives; write "
                "mqtt.publisher(..., qos=QoS.AT_LEAST_ONCE), or forwarder(..., allow_lossy=True)"
            )
            raise ConfigError(msg)
        try:
            _check_texts([self.address, *publisher.headers, *publisher.headers.values()])
        except ValueError as error:
            msg = f"to: {error}"
            raise ConfigError(msg) from error

    @property
    def kind(self) -> str:
        return "mqtt"

    async def publish(self, parcel: Parcel) -> None:
        self._check(parcel)
        await self._caller.publish(parcel)

    def _check(self, parcel: Parcel) -> None:
        """Raise for what the server would close the connection over."""
        headers = {**self.publisher.headers, **self._caller.headers_of(parcel)}
        texts = [parcel.address or self.address, *headers, *headers.values()]
        _check_texts(texts)
        texts.append(parcel.row.headers.get(CORRELATION_ID, ""))
        self._check_size(len(parcel.row.payload) + len("".join(texts).encode()), len(headers))

    def _check_size(self, size: int, user_properties: int) -> None:
        """Check the size of a packet: MQTT 5.0, section 3.2.2.3.6, "Maximum Packet Size"."""
        properties = cast("MQTTBroker", self.broker).connection_info.properties
        limit = None if properties is None else properties.maximum_packet_size
        if limit is None:
            return
        size += PACKET_OVERHEAD + USER_PROPERTY_OVERHEAD * user_properties
        if size > limit:
            msg = f"the packet has up to {size} bytes, the server takes {limit}"
            raise PacketTooLargeError(msg)

    def classify(self, error: BaseException, parcel: Parcel) -> Verdict:
        verdict = super().classify(error, parcel)
        if parcel.address is not None and isinstance(error, zmqtt.MQTTPublishError) and isinstance(verdict, Unsent):
            return Refused(error)
        return verdict


def _check_texts(texts: Sequence[str]) -> None:
    for text in texts:
        if NOT_IN_TEXTS.search(text):
            msg = f"MQTT cannot carry the text {text!r}: it has control characters or noncharacters"
            raise ValueError(msg)


def address_of(publisher: Any, wishes: Wishes) -> Address:
    """Read a publisher of FastStream's ``MQTTBroker``; see ``MqttOutlet``."""
    return any_broker.address_of(publisher, wishes, MqttOutlet)
