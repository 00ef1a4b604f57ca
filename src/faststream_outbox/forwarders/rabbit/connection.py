"""aiormq's connection, which says why a server does not open it."""

from typing import Any

import aiormq
from aiormq import spec
from aiormq.connection import FrameReceiver


class OpeningRefusedError(ConnectionError):
    """The server has closed the connection while it was being opened, and has said why."""

    def __init__(self, close: spec.Connection.Close) -> None:
        super().__init__(f"RabbitMQ answered {close.reply_text} ({close.reply_code})")


class Connection(aiormq.Connection):
    """Reads why a server refuses a virtual host; aiormq expects another frame, and shows no more than this one's type.

    A virtual host that is missing, that is not permitted, or whose limit of connections is reached, is refused so.
    """

    @staticmethod
    async def _rpc(request: Any, writer: Any, frame_receiver: FrameReceiver, *rest: Any, **options: Any) -> Any:
        if isinstance(request, spec.Connection.Open):
            frame_receiver = _ReasonReader(frame_receiver)
        return await aiormq.Connection._rpc(request, writer, frame_receiver, *rest, **options)  # noqa: SLF001


class _ReasonReader(FrameReceiver):
    """Reads what another receiver does, and raises the reason when the server closes the connection."""

    def __init__(self, receiver: FrameReceiver) -> None:
        super().__init__(receiver.reader)
        self._receiver = receiver

    async def get_frame(self) -> Any:
        received = await self._receiver.get_frame()
        if isinstance(frame := received[2], spec.Connection.Close):
            raise OpeningRefusedError(frame)
        return received
