"""Random messages, many of which nobody should accept."""

import random
import string
from dataclasses import dataclass
from typing import Any

QUEUES = ("orders", "ünïcødé", "with space", "a/b.c:d", "'; DROP TABLE outbox; --", "🐘" * 60)
LARGE = 1024 * 1024


@dataclass(frozen=True)
class Case:
    """Arguments of `publish`."""

    body: Any
    queue: Any
    key: Any
    headers: Any


class Fuzz:
    """Draws cases; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)

    def case(self) -> Case:
        return Case(self._body(), self._queue(), self._key(), self._headers())

    def _one_in(self, number: int) -> bool:
        return self._draw.randrange(number) == 0

    def _text(self, longest: int) -> str:
        alphabets = (
            string.printable,
            "äöüßéñ…€",
            "漢字かな",
            "🐘🦣👩‍👩‍👧",
            "\u0000\u0001\u007f",
            "\ud800\udfff",
            "\r\n\t ",
        )
        # Those that nobody can store come seldom.
        alphabet = self._draw.choices(alphabets, weights=(60, 15, 10, 10, 1, 1, 3))[0]
        return "".join(self._draw.choices(alphabet, k=self._draw.randint(0, longest)))

    def _body(self) -> Any:
        if self._one_in(200):
            return self._draw.randbytes(LARGE + self._draw.randint(-2000, 2000))
        kinds = [
            lambda: self._draw.randbytes(self._draw.randint(0, 3000)),
            lambda: self._text(500),
            lambda: {self._text(10): self._text(10) for _ in range(self._draw.randint(0, 5))},
            lambda: [self._draw.randint(-(10**9), 10**9) for _ in range(5)],
            self._draw.random,
            lambda: float("nan"),
            lambda: None,
            lambda: b"",
        ]
        return self._draw.choices(kinds, weights=(50, 20, 10, 5, 5, 1, 5, 4))[0]()

    def _queue(self) -> Any:
        if self._one_in(20):
            return self._draw.choice(["", "x" * 256, "nul\x00", "\ud800", 7, None, b"orders"])
        return self._draw.choice(QUEUES)

    def _key(self) -> Any:
        if self._one_in(30):
            return self._draw.choice(["", "k" * 1025, "\x00", "\udfff", 7, b"key"])
        # Most without control characters, so that they are not all refused.
        text = self._text(30).translate(dict.fromkeys(map(ord, string.whitespace.strip(" "))))
        return self._draw.choice([None, f"key-{self._draw.randrange(20)}", text or None])

    def _headers(self) -> Any:
        if self._one_in(30):
            strange = [{"n": 7}, {"nan": float("nan")}, {7: "x"}, {"": "x"}, {"x": None}, ["x"], {"h": "x" * 40_000}]
            return self._draw.choice([*strange, {"outbox-id": "1"}, {"n" * 300: ""}])
        return {self._text(20): self._text(100) for _ in range(self._draw.randint(0, 4))}
