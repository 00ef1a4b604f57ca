"""The messages of all workloads, the same for everybody."""

import json
from typing import Any

QUEUE = "orders"
BODY_BYTES = 230
KEYS = 500

HEADERS = {
    "tenant": "acme",
    "source": "checkout",
    "schema": "order.v1",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}


def body_of(number: int) -> dict[str, Any]:
    """Give a body that takes 230 bytes as compact JSON and tells its number."""
    body = {"number": number, "key": key_of(number), "note": ""}
    return body | {"note": "n" * (BODY_BYTES - len(as_json(body)))}


def key_of(number: int) -> str | None:
    """Give every second message one of 500 keys."""
    return f"customer-{number // 2 % KEYS}" if number % 2 else None


def as_json(body: Any) -> bytes:
    """Write JSON as FastStream does."""
    return json.dumps(body, separators=(",", ":")).encode()
