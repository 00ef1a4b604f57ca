"""Which queues a process consumes, in as many notifications as it takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faststream_outbox._store.postgres.announcing import PREFIX, payloads_of, read
from faststream_outbox._values.copies import SEPARATOR

LIMIT = 8000
"""A notification's payload must be shorter."""


@given(st.lists(st.text(max_size=255), unique=True, max_size=200))
def test_what_is_announced_is_read(queues: list[str]) -> None:
    payloads = list(payloads_of(queues))
    assert all(len(payload.encode()) < LIMIT for payload in payloads)
    heard = [announcement for payload in payloads if (announcement := read(payload))]
    assert len(heard) == len(payloads)
    assert frozenset().union(*(announcement.queues for announcement in heard)) == frozenset(queues)


def test_many_long_names_take_few_notifications() -> None:
    payloads = list(payloads_of(f"{n:04}{'é' * 125}" for n in range(100)))
    assert all(len(payload.encode()) < LIMIT for payload in payloads)
    assert len(payloads) <= 12


def test_an_announcement_is_no_queue_and_no_probe_of_anybody() -> None:
    """Processes of an older release pass over what begins with the separator."""
    assert PREFIX.startswith(SEPARATOR)
    assert not set(PREFIX.removeprefix(SEPARATOR)) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    "payload",
    [
        "orders",
        '["orders"]',
        "",
        f"{SEPARATOR}0a1b",
        PREFIX,
        f"{PREFIX}[",
        f"{PREFIX}{{}}",
        f"{PREFIX}[1]",
        f'{PREFIX}"orders"',
    ],
)
def test_what_nobody_of_us_has_written_is_passed_over(payload: str) -> None:
    assert read(payload) is None
