"""The token under which this process claims rows."""


class Token:
    """Written once, when it is known whether this process can have a presence.

    Args:
        value: As rows keep it; empty until it is known.
    """

    def __init__(self, value: str = "") -> None:
        self.value = value
        """Empty until it is known whether this process can prove that it lives; nothing can be claimed before."""
