"""Runs coroutines where nothing can be awaited."""

from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from faststream_outbox.exceptions import ConfigError

T = TypeVar("T")


def finish(work: Coroutine[Any, Any, T], *, refusal: str) -> T:
    """Run a coroutine that awaits only what is there at once, as most codecs and publish middlewares do.

    Args:
        work: Not awaited yet.
        refusal: What to say if it waits for something after all; the functions that wait are added.

    Raises:
        ConfigError: It waits. It is ended there, as if its task were cancelled.
    """
    try:
        work.send(None)
    except StopIteration as finished:
        result: T = finished.value
        return result
    waiting = " > ".join(_waiting(work))
    work.close()
    msg = f"{refusal} ({waiting})"
    raise ConfigError(msg)


def _waiting(work: Any) -> Iterator[str]:
    """Return the functions of a coroutine that wait for each other, the outermost first."""
    while hasattr(work, "cr_code"):
        yield work.cr_code.co_qualname
        work = work.cr_await
