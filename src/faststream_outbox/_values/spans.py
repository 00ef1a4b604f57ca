"""Spans of time and sizes, as people read them."""

_KIBI = 1024

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def span(seconds: float | None) -> str:
    """Return a span in its two largest units; a dash where there is none.

    Example:
        >>> span(3_725.0)
        '1 h 2 min'
    """
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    rest = int(seconds)
    parts: list[str] = []
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
    return " ".join(part for part in parts[:2] if part)


def size(count: float) -> str:
    """Return a number of bytes in the largest unit of which there is one.

    Example:
        >>> size(57_344)
        '56 KiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < _KIBI:
            return f"{count:.0f} {unit}"
        count /= _KIBI
    return f"{count:,.1f} TiB"
