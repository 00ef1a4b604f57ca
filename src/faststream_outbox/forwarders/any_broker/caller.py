"""How a row goes through the ``publish`` of a FastStream publisher."""

import inspect
from typing import Any

from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.wire import CONTENT_TYPE, CORRELATION_ID, ROW_KEY, beside, wire_headers

ADDRESS_PARAMETERS = ("subject", "topic", "stream", "list", "channel", "routing_key")
"""How ``publish`` may call where a message goes; the first that it has is meant."""


class PublisherCaller:
    """Sends rows through a publisher, whatever broker it belongs to.

    Args:
        publisher: What ``broker.publisher(...)`` returned.
    """

    def __init__(self, publisher: Any) -> None:
        self._publisher = publisher
        parameters = inspect.signature(publisher.publish).parameters
        self._headers_of = beside(getattr(publisher, "headers", ()), wire_headers)
        self._has_key = "key" in parameters
        # RabbitMQ has properties beside the headers.
        self._has_properties = "publish_kwargs" in parameters
        self._address_parameter = next((name for name in ADDRESS_PARAMETERS if name in parameters), None)

    async def publish(self, parcel: Parcel, *, headers: dict[str, str] | None = None, **options: Any) -> Any:
        """Publish a row: its payload as it is, its headers, its key.

        Args:
            parcel: The row, and its own address if it has one.
            headers: More of them.
            options: More arguments of this publisher's ``publish``.

        Returns:
            What ``publish`` returns.

        Raises:
            ValueError: The parcel has an address, and ``publish`` takes none.
            Exception: What ``publish`` raises.
        """
        row = parcel.row
        if row.key is not None and self._has_key:
            options["key"] = row.key.encode()
        if self._has_properties:
            options.update(message_id=row.idempotency_key, content_type=row.headers.get(CONTENT_TYPE))
        if parcel.address is not None:
            options[self._name_of_address(parcel.address)] = parcel.address
        return await self._publisher.publish(
            row.payload,
            headers={**self.headers_of(parcel), **(headers or {})},
            correlation_id=row.headers.get(CORRELATION_ID),
            **options,
        )

    def headers_of(self, parcel: Parcel) -> dict[str, str]:
        """Return the headers with which a row is published; its key is among them if ``publish`` takes no key."""
        headers = self._headers_of(parcel.row)
        if parcel.row.key is not None and not self._has_key:
            headers[ROW_KEY] = parcel.row.key
        return headers

    def _name_of_address(self, address: str) -> str:
        if self._address_parameter is None:
            msg = f"{type(self._publisher).__name__} sends to one address only, and not to {address!r}"
            raise ValueError(msg)
        return self._address_parameter
