"""What is kept of exceptions, in the application's words."""

from collections.abc import Callable
from typing import Any

from faststream_outbox._values.outcome import storable


class Renderer:
    """Puts exceptions into words by a function of the application's, and outlives what that raises.

    Args:
        render: Returns what is kept of an exception.
        warn: Writes a warning to the log.
    """

    def __init__(self, render: Callable[[BaseException], str], warn: Callable[[str], None]) -> None:
        self._render = render
        self._warn = warn
        self._failed_for: set[str] = set()

    def __call__(self, exception: BaseException | None) -> str | None:
        """Return what is kept of an exception: the name of its class where the function fails."""
        if exception is None:
            return None
        try:
            text: Any = self._render(exception)
            if isinstance(text, str):
                return storable(text)
            problem = f"returned {type(text).__name__} instead of str"
        except Exception as error:  # noqa: BLE001 - the user's code; the outcome must be written all the same
            problem = f"raised {type(error).__name__}"
        kind = type(exception).__name__
        # Once for each class, however many rows fail. Texts are left out: they may have what is not to be kept.
        if kind not in self._failed_for:
            self._failed_for.add(kind)
            self._warn(f"exception_renderer {problem} for {kind}; the name of the class is stored instead")
        return storable(kind)
