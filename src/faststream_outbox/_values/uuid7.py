"""Time-ordered UUIDs, until the oldest supported Python has them (``uuid.uuid7`` came with 3.14)."""

import os
import time
import uuid


def uuid7() -> uuid.UUID:
    """Make a UUIDv7: 48 bits of Unix milliseconds, then 74 random bits (RFC 9562, section 5.7)."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)
