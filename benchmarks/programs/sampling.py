"""Where a program's processor time goes: a look at the stack for each millisecond that it worked."""

import signal
from collections import Counter
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from benchmarks.programs.talk import cpu_seconds

INTERVAL = 0.001


class Sampler:
    """Samples while it is entered. Time in C code counts for the Python function that called it.

    Args:
        enabled: False: does nothing.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._own: Counter[tuple[str, str]] = Counter()
        self._seconds = 0.0

    def __enter__(self) -> Self:
        if self._enabled:
            self._seconds = -cpu_seconds()
            signal.signal(signal.SIGPROF, self._look)
            signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._enabled:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._seconds += cpu_seconds()

    def _look(self, _number: int, frame: FrameType | None) -> None:
        if frame is not None:
            code = frame.f_code
            self._own[_short(code.co_filename), code.co_qualname] += 1

    def result(self) -> dict[str, Any] | None:
        """Give seconds of processor time, and the share of each function that took any."""
        if not self._enabled:
            return None
        total = sum(self._own.values()) or 1
        shares = [[file, function, count / total] for (file, function), count in self._own.most_common()]
        return {"seconds": self._seconds, "samples": total, "shares": shares}


def _short(filename: str) -> str:
    """Name a file by its package, not by where this machine keeps it."""
    if filename == "<string>":
        return "generated/dataclass or named tuple"
    if filename.startswith("<frozen "):
        return f"python/{filename.removeprefix('<frozen ').removesuffix('>')}"
    for marker in ("site-packages/", "/src/"):
        _, found, rest = filename.partition(marker)
        if found:
            return rest
    _, found, rest = filename.partition("lib/python")
    return f"python/{rest.split('/', 1)[1]}" if found else f"benchmarks/{Path(filename).name}"
