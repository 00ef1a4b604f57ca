"""What goes along with a handler's result."""

from faststream_outbox.subscriber.inheritance import inherited_headers
from tests.rows import make_row


def test_a_row_written_by_sql_does_not_say_where_the_result_goes() -> None:
    """As a caller's header the name is refused: a handler whose result inherits it would fail each time."""
    row = make_row(
        7,
        idempotency_key="once",
        headers={"reply_to": "victim", "Reply_To": "victim", "message_id": "x", "content-type": "text/plain", "a": "b"},
        deliveries=0,
    )
    assert inherited_headers(row) == {"a": "b"}
