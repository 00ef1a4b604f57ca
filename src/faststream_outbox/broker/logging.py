"""How the broker's log lines look."""

import logging
from functools import partial
from typing import Any

from faststream_outbox._faststream import (
    ContextRepo,
    DefaultLoggerStorage,
    LoggerProto,
    get_broker_logger,
    make_logger_state,
)

_MESSAGE_ID_WIDTH = 36
"""A whole UUID: the first characters of a UUIDv7 are its time, and the same for all messages of a few seconds."""


class OutboxParamsStorage(DefaultLoggerStorage):
    """Remembers how wide the queue column has to be."""

    def __init__(self) -> None:
        super().__init__()
        self._queue_width = 5
        self.logger_log_level = logging.INFO

    def set_level(self, level: int) -> None:
        self.logger_log_level = level

    def register_subscriber(self, params: dict[str, Any]) -> None:
        # A line about a message names one queue, also where the subscriber has several.
        self._queue_width = max(self._queue_width, *map(len, params.get("queue", "").split(",")))

    def get_logger(self, *, context: ContextRepo) -> LoggerProto:
        logger: LoggerProto | None = self._get_logger_ref()
        if logger is None:
            logger = get_broker_logger(
                name="outbox",
                default_context={"queue": ""},
                message_id_ln=_MESSAGE_ID_WIDTH,
                fmt=(
                    f"%(asctime)s %(levelname)-8s - %(queue)-{self._queue_width}s | "
                    f"%(message_id)-{_MESSAGE_ID_WIDTH}s - %(message)s"
                ),
                context=context,
                log_level=self.logger_log_level,
            )
            self._logger_ref.add(logger)
        return logger


make_outbox_logger_state = partial(make_logger_state, default_storage_cls=OutboxParamsStorage)
