"""Time-ordered UUIDs, until the oldest supported Python has them (``uuid.uuid7`` came with 3.14)."""

import os
import time
from collections.abc import Iterator

_RANDOM_BYTES = 10
_DIGITS = 2 * _RANDOM_BYTES
# The digit that begins with the variant's two bits, for each random digit.
_VARIANT = {digit: "89ab"[int(digit, 16) & 0b11] for digit in "0123456789abcdef"}


def uuid7s(at_once: int = 1) -> Iterator[str]:
    """Yield UUIDv7s as text, without end: 48 bits of Unix milliseconds, then 74 random bits (RFC 9562, section 5.7).

    Each is of the time at which it is asked for.

    Args:
        at_once: How many are probably wanted; the system is asked for random bits of so many at a time.
    """
    while True:
        digits = os.urandom(_RANDOM_BYTES * at_once).hex()
        for first in range(0, len(digits), _DIGITS):
            milliseconds = time.time_ns() // 1_000_000
            random = digits[first : first + _DIGITS]
            yield (
                f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-7{random[:3]}"
                f"-{_VARIANT[random[3]]}{random[4:7]}-{random[7:19]}"
            )
