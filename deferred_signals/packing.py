"""Deliveries that wait for a commit in a few bytes each: a transaction may make a million of them.

They are much alike, so together they compress to a tenth. Packing and unpacking take about as long as a send, which is
why only what exceeds some thousands is packed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence

from .delivery import Delivery
from .options import Options
from .strict_json import dump

#: Fast; higher levels save a tenth of the memory for twice the time.
_LEVEL = 1

Entry = tuple[int, Delivery]


def can_be_packed(delivery: Delivery) -> bool:
    """Whether nobody looks at it before the commit, as ``coalesce`` does."""
    return delivery.subject is None and not delivery.members


class Pack:
    """Deliveries with the numbers of their sends, in order."""

    __slots__ = ("_common", "_data", "count")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.count = len(entries)
        known: dict[tuple[int, str], int] = {}
        #: What many of them have in common, each once.
        self._common: list[tuple[Options, str]] = []
        rows = []
        for number, one in entries:
            place = known.get(key := (id(one.options), one.shared))
            if place is None:
                place = known[key] = len(self._common)
                self._common.append((one.options, one.shared))
            rows.append((number, one.id, one.receiver, one.signal, one.at, one.depth, one.repeats, one.own, place,
                         one.keys, one.kept))  # fmt: skip
        self._data = zlib.compress(dump(rows).encode(), _LEVEL)

    def entries(self) -> Iterator[Entry]:
        """What was packed."""
        for number, key, receiver, signal, at, depth, repeats, own, place, (order, unique), kept in json.loads(
            zlib.decompress(self._data)
        ):
            options, shared = self._common[place]
            yield (
                number,
                Delivery(
                    key,
                    receiver,
                    signal,
                    at,
                    depth=depth,
                    repeats=repeats,
                    shared=shared,
                    own=own,
                    options=options,
                    keys=(order, unique),
                    kept=kept,
                ),
            )
