"""A middleware that fails as no client does, for destinations that go through FastStream's own ``publish``."""

from collections.abc import Awaitable, Callable
from typing import Any

from faststream import BaseMiddleware
from faststream.response import PublishCommand


class UnforeseenError(Exception):
    """Nobody knows what it means."""


def refusing_middleware(key: str, times: int) -> dict[str, Any]:
    """Options of a FastStream broker by which it refuses a key so many times."""
    left = [times]

    class Refusing(BaseMiddleware):
        async def publish_scope(self, call_next: Callable[[Any], Awaitable[Any]], cmd: PublishCommand) -> Any:
            its_key = getattr(cmd, "key", None) or cmd.headers.get("outbox-key", "").encode()
            if its_key == key.encode() and left[0]:
                left[0] -= 1
                raise UnforeseenError
            return await call_next(cmd)

    return {"middlewares": [Refusing]}
