"""What goes along with a handler's result."""

from datetime import UTC, datetime

from faststream_outbox import OutboxRow
from faststream_outbox.subscriber.inheritance import inherited_headers


def test_a_row_written_by_sql_does_not_say_where_the_result_goes() -> None:
    """As a caller's header the name is refused: a handler whose result inherits it would fail each time."""
    row = OutboxRow(
        id=7,
        queue="orders",
        key=None,
        idempotency_key="once",
        payload=b"",
        headers={"reply_to": "victim", "Reply_To": "victim", "message_id": "x", "content-type": "text/plain", "a": "b"},
        attempts_count=0,
        deliveries_count=0,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert inherited_headers(row) == {"a": "b"}
