"""The deliveries of one savepoint frame, from the send to the commit of its transaction.

Whether a frame has committed is read off the one place where Django says so, its list of hooks: a rollback takes hooks
out of it, a commit takes them from it one by one. The first hook that runs hands over the frames of all that are left
there, in send order.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Hashable
from heapq import merge
from itertools import chain
from operator import itemgetter
from typing import Any

from .coalescing import coalesced, merged
from .delivery import Delivery
from .handover import hand_over, hand_over_all
from .packing import Entry, Pack, can_be_packed

logger = logging.getLogger("deferred_signals")

_order = itertools.count()

#: Deliveries of a frame that wait as they are, and how many of more than those are packed away at once.
MOST, PACKED = 2000, 1000


class Hooks:
    """The list of a transaction's hooks; Django makes another one when a savepoint is rolled back."""

    __slots__ = ("entries",)

    def __init__(self, entries: list[Any]) -> None:
        self.entries = entries


class Frame:
    """The deliveries of one savepoint frame, and the list in which its commit hook stands (None in a TestCase)."""

    __slots__ = ("alias", "deliveries", "hooks", "index", "is_gone", "limit", "packs", "place", "subjects")

    def __init__(self, alias: str, place: tuple[str, ...], hooks: Hooks | None) -> None:
        self.alias = alias
        self.place = place
        self.hooks = hooks
        #: Where in the list its hook stands.
        self.index = 0
        #: Whether it was rolled back, or its transaction is over.
        self.is_gone = False
        #: By the number of the send.
        self.deliveries: dict[int, Delivery] = {}
        #: What was packed away of them, when they were more than the limit.
        self.packs: list[Pack] = []
        self.limit = MOST
        #: What can be coalesced: by what it is about, the number of the last send.
        self.subjects: dict[Hashable, int] = {}

    def add(self, delivery: Delivery, *, is_next: bool) -> Delivery:
        """Add a delivery, or what it and the last one about its subject make together; return which.

        ``is_next``: nothing about the subject has been added to another frame since.
        """
        number = next(_order)
        if delivery.subject is not None:
            about = delivery.subject.about
            earlier = self.subjects.get(about) if is_next else None
            if earlier is not None and (one := _one_of(self.deliveries[earlier], delivery)) is not None:
                delivery = one
                del self.deliveries[earlier]
            self.subjects[about] = number
        self.deliveries[number] = delivery
        if len(self.deliveries) > self.limit:
            self._pack()
        return delivery

    def _pack(self) -> None:
        """Pack away what nobody looks at before the commit, but for the last, so that few are packed in vain."""
        entries = [entry for entry in self.deliveries.items() if can_be_packed(entry[1])][:PACKED]
        for number, _ in entries:
            del self.deliveries[number]
        if entries:
            self.packs.append(Pack(entries))
        # Where little could be packed, not to look through all of it again at each send.
        self.limit = max(MOST, len(self.deliveries) + PACKED)

    def take(self) -> tuple[list[Pack], list[Entry]]:
        """Take out what is there: what is packed, and what is not, with the numbers of the sends."""
        packs, taken = self.packs, list(self.deliveries.items())
        self.packs, self.deliveries, self.subjects = [], {}, {}
        return packs, taken

    def stands_in(self, entries: list[Any]) -> bool:
        """Whether its hook stands in this list of Django's, from the beginning of which nothing was taken out."""
        return frames_in(entries[self.index : self.index + 1]) == [self]

    def on_commit(self) -> None:
        """The commit hook."""
        if not self.deliveries and not self.packs:
            return  # an earlier one has handed them over; looking through the list for each would be quadratic
        frames = [self]
        # Django has taken this hook out of the list: it is committing, and what is left in the list commits too. A hook
        # that still stands in it was called by somebody else (captureOnCommitCallbacks), or from the list that Django
        # made when a savepoint was rolled back: then this frame is all that is known to be committed.
        if self.hooks is not None and not self.stands_in(self.hooks.entries):
            frames += frames_in(self.hooks.entries)
        hand_over_frames(frames, self.alias)


def hand_over_frames(frames: list[Frame], alias: str) -> None:
    """Hand over what is there of frames that are committed together, in the order of the sends."""
    to_coalesce = any(frame.subjects for frame in frames)
    taken = [frame.take() for frame in frames]
    waiting = sorted((entry for _, entries in taken for entry in entries), key=itemgetter(0))
    if to_coalesce:
        try:
            waiting = coalesced(waiting)
        except Exception:
            # After the commit nothing may be lost and nothing may reach the caller.
            logger.exception("Deliveries could not be coalesced, so each of them leaves by itself")
    packed = [chain.from_iterable(pack.entries() for pack in packs) for packs, _ in taken if packs]
    if packed:
        hand_over_all((delivery for _, delivery in merge(waiting, *packed, key=itemgetter(0))), alias)
    else:
        hand_over([delivery for _, delivery in waiting], alias)


def _one_of(earlier: Delivery, later: Delivery) -> Delivery | None:
    """What two deliveries about one subject make together; None if they stay two."""
    if later.kept is None:
        return merged(earlier, later)
    # They were made one when the row was written, or not.
    return later if later.id == earlier.id else None


def frames_in(hooks: list[Any]) -> list[Frame]:
    """The frames whose hooks stand in one of Django's lists, whatever else its entries hold."""
    owners = (getattr(part, "__self__", None) for entry in hooks for part in entry)
    return [owner for owner in owners if isinstance(owner, Frame)]
