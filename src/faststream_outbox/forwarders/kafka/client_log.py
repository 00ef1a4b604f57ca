"""aiokafka writes log lines for every attempt; we try again until it works, and say once that something is wrong."""

import logging
from contextvars import ContextVar

_last_line: ContextVar[list[str] | None] = ContextVar("_last_line", default=None)


class _KeepLastLine(logging.Filter):
    """Takes lines of our own clients out of the log, and leaves all others where they are."""

    def filter(self, record: logging.LogRecord) -> bool:
        last = _last_line.get()
        if last is None or record.levelno < logging.WARNING:
            return True
        last[:] = [record.getMessage()]
        return False


_FILTER = _KeepLastLine()
for _name in ("aiokafka", "aiokafka.cluster", "aiokafka.conn"):
    logging.getLogger(_name).addFilter(_FILTER)


def keep_lines_out_of_the_log() -> list[str]:
    """Keep what aiokafka says in this task, and in tasks that it starts from now on, out of the log.

    Returns:
        A list that holds the last such line, if there was one.
    """
    last: list[str] = []
    _last_line.set(last)
    return last
