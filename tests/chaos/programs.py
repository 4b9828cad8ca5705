"""Random transactions, as trees: what a sender does until it has sent enough."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

#: Intents and blocks inside a block.
SMALL, LARGE = (1, 3), (1, 50)

#: Keys of each sender by which deliveries are put in order.
KEYS = 20


def key_of(intent: str) -> str:
    """The key of an intent whose deliveries run in order (``order_by``): of one sender, for others run beside it."""
    sender, _, number = intent.partition("-")
    return f"{sender}-{int(number) % KEYS}"


@dataclass
class Send:
    intent: str
    kind: str


@dataclass
class Block:
    """``atomic()``, or autocommit where it is not. ``fails`` is raised in and caught outside, so it is rolled back."""

    atomic: bool = True
    fails: bool = False
    parts: list[Send | Block] = field(default_factory=list)

    def kept(self) -> Iterator[Send]:
        """The sends that a commit of this block leaves."""
        for part in [] if self.fails else self.parts:
            yield from [part] if isinstance(part, Send) else part.kept()

    def sends(self) -> Iterator[Send]:
        for part in self.parts:
            yield from [part] if isinstance(part, Send) else part.sends()


class Programs:
    """The endless sequence of one sender's transactions; the same seed gives the same."""

    def __init__(self, sender: int, seed: int, kinds: Sequence[str] = ("model", "custom")) -> None:
        self.sender = sender
        self.kinds = kinds
        self.random = random.Random(f"{seed}/{sender}")
        self.count = 0

    def __iter__(self) -> Iterator[Block]:
        while True:
            yield self._transaction()

    def _transaction(self) -> Block:
        shape = self.random.choices(
            ["autocommit", "small", "batch", "nested", "rolled back"], weights=[20, 30, 15, 25, 10]
        )[0]
        if shape == "autocommit":
            return Block(atomic=False, parts=[self._send()])
        if shape == "nested":
            return self._nested(depth=0)
        size = self.random.randint(*(LARGE if shape == "batch" else SMALL))
        return Block(fails=shape == "rolled back", parts=[self._send() for _ in range(size)])

    def _nested(self, depth: int) -> Block:
        block = Block(fails=self.random.random() < (0.1 if depth == 0 else 0.35))
        for _ in range(self.random.randint(1, 4)):
            inner = depth < 3 and self.random.random() < 0.5
            block.parts.append(self._nested(depth + 1) if inner else self._send())
        return block

    def _send(self) -> Send:
        self.count += 1
        kind = self.random.choice(self.kinds)
        return Send(f"i{self.sender}-{self.count:07d}", kind)
