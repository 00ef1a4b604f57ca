"""The queues of copies: what a consumer with ``tee=True`` takes its own rows from."""

SEPARATOR = "=>"
"""Between a queue's name and that of the consumer; no queue of a user has it in its name."""


def copy_queue(queue: str, name: str) -> str:
    """Name the queue of one consumer's copies, as in ``orders=>redis:orders``."""
    return f"{queue}{SEPARATOR}{name}"


def origin_of(queue: str) -> str:
    """Name the queue that was published to; the queue itself where it is not one of copies."""
    return queue.partition(SEPARATOR)[0]
