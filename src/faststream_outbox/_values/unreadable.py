"""Headers that cannot be read: what stands in their place, and why a consumer gets none of them."""

from typing import Any

LONGEST_NAME = 60
"""Characters of a header's name that a sentence about it quotes: the name may have millions."""

_JSON_TYPES = {bool: "a boolean", int: "a number", float: "a number", list: "an array", dict: "an object"}


class Unreadable(dict[str, str]):
    """Stands in a row for headers that no message has, and is empty: whatever reads the row goes on.

    ``publish`` writes an object of texts and nothing else; SQL can write anything.

    Args:
        problem: A sentence about the headers.
    """

    __slots__ = ("problem",)

    def __init__(self, problem: str) -> None:
        super().__init__()
        self.problem = f"the headers cannot be read: {problem}"
        """Why no consumer can get the message."""


def as_headers(value: Any) -> dict[str, str]:
    """Return parsed headers as they are, or what stands for them if they are not an object of texts.

    Nothing is converted: a number that arrives as a text would be another message than the one that was written.
    """
    if type(value) is not dict:
        return Unreadable(f"they are {_type_name(value)}, not an object of texts")
    for name, content in value.items():
        if type(content) is not str:
            return Unreadable(f"the value of {name[:LONGEST_NAME]!r} is {_type_name(content)}, not a text")
    return value


def _type_name(value: Any) -> str:
    return _JSON_TYPES.get(type(value), "a text" if isinstance(value, str) else "null")
