"""Warns of a server that may evict messages that it has acknowledged."""

import logging
from collections.abc import Mapping

from faststream_outbox._engine.health import Log

ANY_KEY = "allkeys-"
"""Policies with this beginning evict keys without an expiry, as streams and lists are. Redis documentation, "Key
eviction"."""


class EvictionWarning:
    """Tells once, in the log, that a server with little memory left would evict whole streams and lists.

    Args:
        log: Where to.
        address: Of the forwarder.
    """

    def __init__(self, log: Log, address: str) -> None:
        self._log = log
        self._address = address
        self._is_told = False

    def look(self, memory: Mapping[str, str]) -> None:
        """Look at the section "memory" of the server's INFO; one that is not told says nothing."""
        policy = memory.get("maxmemory_policy", "")
        if self._is_told or memory.get("maxmemory", "0") == "0" or not policy.startswith(ANY_KEY):
            return
        self._is_told = True
        message = (
            f"redis:{self._address}: with maxmemory-policy {policy} the server may evict messages that it has "
            "accepted and no consumer has read; set maxmemory-policy to noeviction, or to a policy volatile-..."
        )
        self._log(logging.WARNING, message, None)
