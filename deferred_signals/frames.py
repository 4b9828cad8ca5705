"""Deliveries that wait for the commit of their database.

Each savepoint frame of a transaction that has deliveries registers one commit hook. Whether a frame has committed is
read off the one place where Django says so, its list of hooks: a rollback takes hooks out of it, a commit takes them
from it one by one. The first hook that runs hands over the frames of all that are left there, in send order.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Hashable
from operator import itemgetter
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from .coalescing import coalesced, merged
from .delivery import Delivery
from .handover import hand_over

logger = logging.getLogger("deferred_signals")

_order = itertools.count()


class Frame:
    """The deliveries of one savepoint frame, and the list in which its commit hook stands (None in a TestCase)."""

    __slots__ = ("deliveries", "hooks", "place", "subjects")

    def __init__(self, place: tuple[str, ...], hooks: list[Any] | None) -> None:
        self.place = place
        self.hooks = hooks
        #: By the number of the send.
        self.deliveries: dict[int, Delivery] = {}
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
            if earlier is not None and (one := merged(self.deliveries[earlier], delivery)) is not None:
                delivery = one
                del self.deliveries[earlier]
            self.subjects[about] = number
        self.deliveries[number] = delivery
        return delivery

    def take(self) -> list[tuple[int, Delivery]]:
        """Take out what is there, with the numbers of the sends."""
        taken = list(self.deliveries.items())
        self.deliveries, self.subjects = {}, {}
        return taken

    def on_commit(self) -> None:
        """The commit hook."""
        if not self.deliveries:
            return  # an earlier one has handed them over; looking through the list for each would be quadratic
        frames = [self]
        others = frames_in(self.hooks or [])
        # Django has taken this hook out of the list: it is committing, and what is left in the list commits too. A hook
        # that still stands in it was called by somebody else (captureOnCommitCallbacks), or from the list that Django
        # made when a savepoint was rolled back: then this frame is all that is known to be committed.
        if self not in others:
            frames += others
        to_coalesce = any(frame.subjects for frame in frames)
        waiting = sorted((entry for frame in frames for entry in frame.take()), key=itemgetter(0))
        deliveries = [delivery for _, delivery in waiting]
        if to_coalesce:
            try:
                deliveries = coalesced(deliveries)
            except Exception:
                # After the commit nothing may be lost and nothing may reach the caller.
                logger.exception("Deliveries could not be coalesced, so each of them leaves by itself")
        hand_over(deliveries)


def frames_in(hooks: list[Any]) -> list[Frame]:
    """The frames whose hooks stand in one of Django's lists, whatever else its entries hold."""
    owners = (getattr(part, "__self__", None) for entry in hooks for part in entry)
    return [owner for owner in owners if isinstance(owner, Frame)]


class Buffer:
    """The frames of the transaction that is open on one database connection, by their place in it."""

    def __init__(self) -> None:
        self.hooks: list[Any] | None = None
        self.frames: dict[Any, Frame] = {}
        #: By what it is about, the frame that the last delivery went to.
        self.last: dict[Hashable, Frame] = {}

    def hold(self, delivery: Delivery, connection: BaseDatabaseWrapper) -> Delivery:
        """Keep a delivery until the transaction that is open on the connection commits; return what is kept.

        Uses three attributes of the connection that Django does not document (test_publisher fails when they move),
        because nothing public tells savepoints and transactions apart.
        """
        self._refresh(connection)
        place = tuple(sid for sid in connection.savepoint_ids if sid is not None)
        about = None if delivery.subject is None else delivery.subject.about
        if connection.atomic_blocks and getattr(connection.atomic_blocks[0], "_from_testcase", False):
            # The transaction of a TestCase never commits. Each delivery gets a hook, for captureOnCommitCallbacks shows
            # a test those that were registered inside its block.
            frame = Frame(place, None)
            connection.on_commit(frame.on_commit)
            earlier = self.last.get(about)
            # Only from a frame that cannot stay if this one is rolled back.
            if earlier is not None and earlier.place[: len(place)] == place:
                for _, moved in earlier.take():
                    frame.add(moved, is_next=False)
                self.last[about] = frame
        else:
            found = self.frames.get(place)
            if found is None:
                found = self.frames[place] = Frame(place, self.hooks)
                connection.on_commit(found.on_commit)
            frame = found
        kept = frame.add(delivery, is_next=self.last.get(about) is frame)
        if about is not None:
            self.last[about] = frame
        return kept

    def _refresh(self, connection: BaseDatabaseWrapper) -> None:
        """Forget what is gone: this is another transaction, or the list that Django made at a savepoint's rollback."""
        if self.hooks is connection.run_on_commit:
            return
        self.hooks = connection.run_on_commit
        there = frames_in(self.hooks)
        self.frames = {frame.place: frame for frame in there if frame.hooks is not None}
        for frame in self.frames.values():
            frame.hooks = self.hooks
        numbers = sorted(
            ((number, about, frame) for frame in there for about, number in frame.subjects.items()), key=itemgetter(0)
        )
        self.last = {about: frame for _, about, frame in numbers}
