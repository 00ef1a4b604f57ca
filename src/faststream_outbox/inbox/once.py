"""Goes around a handler, inside of everything that resolves its dependencies, and lets no repeat through.

FastStream's own middlewares cannot do it. They run before a handler's dependencies are there, so they have no session
of the handler's: an entry in another transaction could commit without the work. And they belong to a broker or a
router, so several handlers would share one consumer, and a message that comes to two of them would be lost to one.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio.from_thread
from faststream.message import StreamMessage
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from faststream_outbox._faststream import HandlerCallWrapper
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.message import OutboxMessage
from faststream_outbox.response import OutboxResponse

if TYPE_CHECKING:
    from faststream_outbox.inbox.inbox import Inbox

Handler = TypeVar("Handler", bound=Callable[..., Any])

SYNC = (Session, Connection, scoped_session)
ASYNC = (AsyncSession, AsyncConnection, async_scoped_session)


def handle_once(inbox: "Inbox", handler: Handler) -> Handler:
    """Return the handler, so that it is called only with messages that the inbox accepts.

    Raises:
        ConfigError: FastStream has decorated it before.
    """
    if isinstance(handler, HandlerCallWrapper) or not callable(handler):
        msg = "once: must stand next to the handler's function, below @broker.subscriber and @broker.publisher"
        raise ConfigError(msg)
    decorate = _around_async if inspect.iscoroutinefunction(handler) else _around_sync
    decorated: Any = decorate(inbox, handler)
    # FastStream checks results by this annotation, and a repeat has none. What a handler may return is checked here.
    decorated.__signature__ = inspect.signature(handler).replace(return_annotation=inspect.Signature.empty)
    return cast("Handler", decorated)


def _around_async(inbox: "Inbox", handler: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(handler)
    async def handle(*args: Any, **kwargs: Any) -> Any:
        message, session = _find(inbox, handler, [*args, *kwargs.values()])
        if isinstance(session, SYNC):
            first = inbox.accept_sync(session, message)
        else:
            first = await inbox.accept(session, message)
        if not first:
            # With AckPolicy.MANUAL nobody else does; with another one, the second time does nothing.
            await message.ack()
            return None
        result = await handler(*args, **kwargs)
        _check_result(handler, result, message, session)
        return result

    return handle


def _around_sync(inbox: "Inbox", handler: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(handler)
    def handle(*args: Any, **kwargs: Any) -> Any:
        message, session = _find(inbox, handler, [*args, *kwargs.values()])
        if not inbox.accept_sync(session, message):
            # FastStream and FastAPI call plain functions in a thread of anyio's.
            anyio.from_thread.run(message.ack)
            return None
        result = handler(*args, **kwargs)
        _check_result(handler, result, message, session)
        return result

    return handle


def _find(inbox: "Inbox", handler: Callable[..., Any], arguments: list[Any]) -> tuple[StreamMessage[Any], Any]:
    messages = [each for each in arguments if isinstance(each, StreamMessage)]
    sessions = [each for each in arguments if isinstance(each, ASYNC + SYNC)]
    if len(messages) != 1:
        raise ConfigError(_misfit(handler, len(messages), "message", "such as message: KafkaMessage"))
    if inbox.in_memory is not None:
        # A test may put anything in the place of a session.
        return messages[0], sessions[0] if sessions else None
    if len(sessions) != 1:
        raise ConfigError(_misfit(handler, len(sessions), "session", "in which it does its work"))
    return messages[0], sessions[0]


def _misfit(handler: Callable[..., Any], count: int, what: str, example: str) -> str:
    return (
        f"inbox.once: {_name(handler)} was called with {count or 'no'} {what}{'s' if count > 1 else ''}; it needs one "
        f"parameter with a {what}, {example}; or call inbox.accept(session, message) in it yourself"
    )


def _check_result(handler: Callable[..., Any], result: Any, message: StreamMessage[Any], session: Any) -> None:
    """Refuse what would be published after the session has committed; a crash in between would lose it.

    Raises:
        ConfigError: It would; the transaction of the handler is rolled back by it.
    """
    if result is None:
        return
    if isinstance(result, OutboxResponse) and isinstance(message, OutboxMessage) and result.session is session:
        return
    msg = (
        f"inbox.once: {_name(handler)} returned {type(result).__name__}, which would be published after its session "
        "has committed, and be lost in a crash between the two. Publish with OutboxBroker.publish(session=session) in "
        "the handler, or in a subscriber of an OutboxBroker return an OutboxResponse with the handler's session"
    )
    raise ConfigError(msg)


def _name(handler: Callable[..., Any]) -> str:
    return getattr(handler, "__name__", type(handler).__name__)
